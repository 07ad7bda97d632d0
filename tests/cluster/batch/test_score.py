"""Whole scorings by a real Ray: nothing lost, nothing changed, whatever is killed."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.batch.order import Asked, read_order
from cluster.batch.score import score
from cluster.batch.scorer import KILLER, Scored, Scorer, Task
from ensemble.bundle import load_bundle
from ensemble.runtime import Runtime, at_prevalence
from search.data.transforms import decode
from search.errors import BundleError, ConfigError, ConsiliumError
from tests.cluster.batch.folders import BAD, write_bad_images, write_images, write_table
from tests.rays import started_ray

pytestmark = [
    pytest.mark.slow,
    # It copies its settings, the old ones among them.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.*"),
]
COUNT = 40


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with started_ray(num_cpus=2):
        yield


@pytest.fixture
def asked(tmp_path: Path, bundle: Path) -> Asked:
    names = write_images(tmp_path / "images", COUNT)
    table = write_table(tmp_path / "table.csv", names)
    images = [str(tmp_path / "images")]
    return Asked(bundle, str(table), str(tmp_path / "out.csv"), images, shard=6)


def rows_of(asked: Asked) -> list[dict[str, str]]:
    with Path(asked.output).open(newline="") as file:
        return list(csv.DictReader(file))


def expected(asked: Asked, names: Sequence[str]) -> Any:
    runtime = Runtime(load_bundle(asked.bundle))
    folder = Path(asked.images[0])
    return runtime.predict([decode(folder / f"{name}.png") for name in names]).probs


class Mortal(Scorer):
    """Dies once, by the file that it leaves beside the images."""

    def _score(self, names: Sequence[str | None]) -> list[Scored]:
        marker = Path(self._task.roots[0]) / "died"
        if not marker.exists() and "image_020" in names:
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._score(names)


class Poisoned(Scorer):
    """Dies by one image each time."""

    def _score(self, names: Sequence[str | None]) -> list[Scored]:
        if "image_020" in names:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._score(names)


class Doomed(Scorer):
    """Cannot be used at all."""

    def __init__(self, task: Task) -> None:
        super().__init__(replace(task, digest="0" * 64))


def test_scores_are_those_of_the_runtime_and_bad_images_are_rows(asked: Asked) -> None:
    folder = Path(asked.images[0])
    names = [*write_bad_images(folder), *(f"image_{i:03d}" for i in range(COUNT)), ""]
    write_table(Path(asked.table), names)
    asked = replace(asked, output=asked.output.replace(".csv", ".parquet"))
    about = score(read_order(asked))
    found = pq.read_table(asked.output).to_pydict()
    assert found["image"] == [*names[:-1], None]
    assert found["code"] == [f"{i:04d}" for i in range(len(names))]
    assert found["age"] == [60 + i for i in range(len(names))]
    kinds = [error and error.partition(":")[0] for error in found["error"]]
    assert kinds == [*BAD.values(), *[None] * COUNT, "missing"]
    good = slice(len(BAD), len(BAD) + COUNT)
    probs = expected(asked, names[good])
    mine = np.stack([found["prob_benign"][good], found["prob_malignant"][good]], axis=1)
    np.testing.assert_allclose(mine, probs, atol=1e-6)
    wanted = ["positive" if p >= 0.3 else "negative" for p in probs[:, 1]]
    assert found["decision"][good] == wanted
    for i in [*range(len(BAD)), -1]:
        assert found["prob_benign"][i] is found["decision"][i] is found["novel"][i] is None
    assert about["images"] == len(names)
    assert about["scored"] == COUNT
    assert about["errors"] == {"missing": 2, "too large": 1, "truncated": 1, "unreadable": 3}
    assert not Path(f"{asked.output}.parts").exists()


def test_a_prevalence_shifts_probabilities_and_leaves_decisions(asked: Asked) -> None:
    score(read_order(asked))
    before = rows_of(asked)
    shifted = replace(
        asked, prevalence={"malignant": 0.01}, output=asked.output.replace("out", "shifted")
    )
    score(read_order(shifted))
    after = rows_of(shifted)
    probs = np.array([[float(row["prob_benign"]), float(row["prob_malignant"])] for row in before])
    moved = at_prevalence(load_bundle(asked.bundle), probs, {"malignant": 0.01})
    np.testing.assert_allclose([float(row["prob_malignant"]) for row in after], moved[:, 1])
    assert [row["decision"] for row in after] == [row["decision"] for row in before]


def test_the_same_again_does_nothing_and_another_order_is_refused(asked: Asked) -> None:
    about = score(read_order(asked))
    stamp = Path(asked.output).stat().st_mtime_ns
    assert score(read_order(asked)) == about
    assert Path(asked.output).stat().st_mtime_ns == stamp
    with pytest.raises(ConfigError, match=r"out\.csv: belongs to another order, where --shard"):
        score(read_order(replace(asked, shard=7)))


def test_a_killed_actor_loses_nothing(asked: Asked) -> None:
    score(read_order(asked))
    undisturbed = Path(asked.output).read_bytes()
    again = replace(asked, output=asked.output.replace("out", "again"))
    score(read_order(again), scorer=Mortal)
    assert (Path(asked.images[0]) / "died").exists()
    assert Path(again.output).read_bytes() == undisturbed


def test_an_image_that_kills_its_process_is_a_row_with_an_error(asked: Asked) -> None:
    about = score(read_order(asked), scorer=Poisoned)
    assert about["errors"] == {"unscorable": 1}
    errors = {row["image"]: row["error"] for row in rows_of(asked) if row["error"]}
    assert errors == {"image_020": KILLER}


def test_what_no_image_is_to_blame_for_ends_the_scoring_and_keeps_the_parts(asked: Asked) -> None:
    with pytest.raises(ConsiliumError, match=r"was changed meanwhile; run the command again"):
        score(read_order(asked), scorer=Doomed)
    assert not Path(asked.output).exists()
    assert score(read_order(asked))["scored"] == COUNT


def test_more_workers_than_cpus_are_refused(asked: Asked) -> None:
    with pytest.raises(ConfigError, match=r"more than the 2 CPUs .*lower --workers"):
        score(read_order(replace(asked, workers=3)))


def test_a_bundle_that_is_gone_is_refused(asked: Asked, tmp_path: Path) -> None:
    copy = shutil.copytree(asked.bundle, tmp_path / "copy")
    order = read_order(replace(asked, bundle=copy))
    shutil.rmtree(copy)
    with pytest.raises((BundleError, ConsiliumError), match=r"no readable bundle\.json"):
        score(order)


def test_the_bundle_travels_to_where_its_folder_is_not(asked: Asked, tmp_path: Path) -> None:
    from cluster.batch import score as module

    copy = shutil.copytree(asked.bundle, tmp_path / "copy")
    order = read_order(replace(asked, bundle=copy))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "has_other_nodes", lambda: True)
        task = module.task_of(order)
    shutil.rmtree(copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "task_of", lambda _order: task)
        assert module.score(order)["scored"] == COUNT


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_killed_command_goes_on_where_it_stopped(asked: Asked, suffix: str) -> None:
    asked = replace(asked, output=asked.output.replace("csv", suffix), shard=1)
    score(read_order(asked))
    undisturbed = Path(asked.output).read_bytes()
    again = replace(asked, output=asked.output.replace("out", "again"))
    words = [*("--images", again.images[0]), *("--output", again.output), *("--shard", "1")]
    start = "from cluster.cli import main; main()"
    command = [sys.executable, "-c", start, "score", str(again.bundle), again.table]
    folder = tempfile.mkdtemp(prefix="c")  # what a killed Ray leaves behind lies in there
    surroundings = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [*command, *words],
        env=surroundings | {"TMPDIR": folder},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    parts = Path(f"{again.output}.parts")
    try:
        deadline = time.monotonic() + 120
        while len(list(parts.glob("[0-9]*.parquet"))) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    done = len(list(parts.glob("[0-9]*.parquet")))
    assert 3 <= done < COUNT
    about = score(read_order(again))
    assert about["scored_now"] == COUNT - done
    if suffix == "csv":
        assert Path(again.output).read_bytes() == undisturbed
    else:
        assert pq.read_table(again.output).equals(pq.read_table(asked.output))
