"""The doctor's rounds over real raylets, and the command."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster import cli
from cluster.doctor import rounds
from cluster.doctor.findings import Finding, Row
from cluster.doctor.rounds import about, verdict
from search.errors import ClusterError
from tests.cluster.refusals import refusal
from tests.experiments import write_experiment
from tests.servers import free_port

ROWS = [
    Row("10.0.0.1", Finding("memory", "advice", "2.0 GiB", "give it more")),
    Row("10.0.0.2", Finding("open files", "broken", "1024", "ulimit -n 65536")),
    Row("driver", Finding("Ray", "ok", "2 nodes")),
]


def test_advice_is_no_failure() -> None:
    verdict([ROWS[0], ROWS[2]])
    message = r"^1 of 3 checks failed, the first: 10\.0\.0\.2, open files: 1024; ulimit -n 65536$"
    with pytest.raises(ClusterError, match=message):
        verdict(ROWS)


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_failed_check_ends_the_command_after_the_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.setattr(rounds, "examine", lambda *_: ROWS)
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", *words])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert err.startswith("consilium: 1 of 3 checks failed")
    if words:
        assert json.loads(out)["ok"] is False
        assert json.loads(out)["checks"][1]["mend"] == "ulimit -n 65536"
    else:
        assert "MEND" in out
        assert "10.0.0.2" in out


def test_a_head_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert f"no Ray answers at {address}" in refusal(capsys, "doctor", "--address", address)


def test_a_ray_that_does_not_start_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(rounds, "connected", broken)
    row = rounds.examine(None, None)[-1]
    assert row.finding.level == "broken"
    assert "No space left on device" in row.finding.seen


def test_a_node_says_where_its_session_lies() -> None:
    node = {
        "Resources": {"GPU": 2.0, "object_store_memory": 1e8},
        "ObjectStoreSocketName": "/var/ray/session_1/sockets/plasma_store",
    }
    said = about(node)
    assert said == {"ray_gpus": 2.0, "object_store": 10**8, "session": "/var/ray/session_1"}


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[str]:
    """A head and a second raylet that has no CPU free for anyone."""
    folder = tempfile.mkdtemp(prefix="r")  # short: Unix sockets bear 107 characters
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        common: dict[str, Any] = {"object_store_memory": 10**8, "include_dashboard": False}
        cluster: Any = Cluster(
            initialize_head=True, head_node_args={**common, "num_cpus": 1, "temp_dir": folder}
        )
        try:
            cluster.add_node(num_cpus=0, object_store_memory=10**8)
            yield cluster.address
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_every_node_is_asked(
    two_nodes: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write_experiment(tmp_path)
    cli.run(["doctor", str(path), "--address", two_nodes, "--json"])
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert answer["ok"] is True
    checks = [(row["where"], row["check"]) for row in answer["checks"]]
    places = {where for where, check in checks if check == "study place"}
    assert len(places) == 2
    assert {(where, "versions") for where in places} <= {*checks}
    assert ("driver", "study storage") in checks
    assert "2 nodes" in err
    assert not list(tmp_path.rglob(".consilium-doctor*"))


@pytest.mark.slow
def test_what_a_node_lacks_is_said_of_that_node(
    two_nodes: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write_experiment(tmp_path)
    shutil.rmtree(tmp_path / "data" / "images")
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", str(path), "--address", two_nodes])
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("consilium: 2 of ")
    assert "images is not there; mount it on every node" in last
