"""What `consilium pipeline` prints, and how it ends."""

import json
from pathlib import Path

import pytest

from cluster import cli
from serving.config import ServingConfig
from serving.http.keys import add_key
from tests.cluster.pipeline.site import Site, write_site
from tests.cluster.refusals import refusal
from tests.serving.live import live


def test_the_command_prints_the_steps_and_ends_with_1_where_a_gate_fails(
    served: Site, material: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served.variants = [material / "bad"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["pipeline", str(served.config), "--json"])
    printed = capsys.readouterr()
    assert stop.value.code == 1
    found = json.loads(printed.out)
    assert [step["status"] for step in found["steps"]] == ["done", "done", "skipped", "failed"]
    assert found["steps"][3]["outcome"]["rules"][0]["holds"] is False
    assert found["error"].startswith("gate: nll ")
    assert "consilium: gate: nll " in printed.err


def test_the_command_prints_a_table(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["pipeline", str(site.config), "--until", "ensemble"])
    printed = capsys.readouterr().out
    assert "Pipeline tiny" in printed
    assert "3 trials" in printed
    assert "evaluate" not in printed


def test_a_mistake_in_the_section_is_told_before_the_search(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write(pipeline={"servce": "http://fake"})
    assert "pipeline.servce: unknown key" in refusal(capsys, "pipeline", site.config)
    assert site.calls == []


@pytest.mark.parametrize("key", [None, "wrong", "predict"])
def test_without_an_admins_key_nothing_begins(
    tmp_path: Path,
    material: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    key: str | None,
) -> None:
    site = write_site(tmp_path, material / "data", [material / "new"])
    predict = add_key(tmp_path / "keys", "reader", ["predict"])
    monkeypatch.delenv("ADMIN_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("ADMIN_KEY", predict if key == "predict" else key)
    with live(ServingConfig(bundle=material / "old", keys=tmp_path / "keys")) as url:
        site.write(pipeline={"service": url, "api_key_env": "ADMIN_KEY"})
        line = refusal(capsys, "pipeline", site.config)
    assert line.endswith("; set ADMIN_KEY to a key with scope admin")
    assert predict not in line
    assert not (site.out / "study").exists()


def test_a_service_that_is_not_there_is_told_before_the_search(
    tmp_path: Path, material: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = write_site(tmp_path, material / "data", [material / "new"])
    site.write(pipeline={"service": "http://127.0.0.1:9"})
    assert "127.0.0.1:9: cannot be reached" in refusal(capsys, "pipeline", site.config)
    assert not (site.out / "study").exists()
