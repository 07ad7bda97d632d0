"""A study's numbers as Ray's metrics get them."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search.config import ExperimentConfig
from search.params import Params
from search.study.records import TrialRecord
from search.study.standing import RunningTrial, Standing
from search.study.trial import Trial
from search.tracking.prometheus import FAMILIES, Prometheus, RayExport
from search.tracking.trackers import open_tracker

PARAMS = Params(backbone="cnn")
TRIAL = Trial(7, PARAMS)
EPOCHS: list[dict[str, float | None]] = [{"nll": 0.7}, {"nll": 0.5}]
COUNTED = ("Counter", "Histogram")


def record(**changes: Any) -> TrialRecord:
    whole: dict[str, Any] = {
        "number": 7,
        "status": "complete",
        "params": PARAMS,
        "fold": 0,
        "value": 0.5,
        "seconds": 90.0,
        "epochs": EPOCHS,
    }
    return TrialRecord(**{**whole, **changes})


UNDER_WAY = RunningTrial(
    number=8, fold=0, name="cnn", epoch=0, max_epochs=9, value=None, seconds=1.0
)
STANDING = Standing(
    phase="trials",
    running=(UNDER_WAY,),
    counts={"complete": 2, "pruned": 1},
    done=3,
    target=9,
    best=record(),
    objective="nll",
    seconds=100.0,
    seconds_left=None,
    gpu_hours=0.0,
    gpu_hours_left=None,
    slots=2,
)


class Kept:
    """An export that adds up what it gets."""

    def __init__(self, *, running: bool = True) -> None:
        self.running = running
        self.values: dict[str, float] = {}
        self.sent = 0

    def ready(self) -> bool:
        return self.running

    def send(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        assert set(labels) == {"study", *FAMILIES[name].keys}
        self.sent += 1
        said = " ".join([name.removeprefix("consilium_search_"), *list(labels.values())])
        before = self.values.get(said, 0.0) if FAMILIES[name].kind in COUNTED else 0.0
        self.values[said] = before + value


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def gauges(kept: Kept) -> Iterator[Prometheus]:
    gauges = Prometheus("tiny", export=kept, beat=3600)
    yield gauges
    gauges.close()


def wait_for(met: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_epochs_are_counted_once_and_those_not_heard_of_come_with_the_end(
    kept: Kept, gauges: Prometheus
) -> None:
    gauges.epoch(TRIAL, 1, {"nll": 0.7})
    gauges.epoch(TRIAL, 1, {"nll": 0.7})
    gauges.end(record())
    gauges.end(record(number=8, promoted_from=7))
    gauges.end(record(fold=1))
    counted = {name: n for name, n in kept.values.items() if name.startswith("epochs_total")}
    assert counted == {
        "epochs_total tiny trials": 2,
        "epochs_total tiny second rung": 2,
        "epochs_total tiny finalists": 2,
    }


def test_trials_are_counted_by_how_they_ended(kept: Kept, gauges: Prometheus) -> None:
    gauges.end(record())
    gauges.end(record(number=8, status="pruned"))
    gauges.end(record(number=9, status="failed", again=True, epochs=[]))
    gauges.end(record(number=10, status="failed", epochs=[]))
    ended = {name: n for name, n in kept.values.items() if name.startswith("ended")}
    assert ended == {
        "ended_total tiny complete trials": 1,
        "ended_total tiny pruned trials": 1,
        "ended_total tiny again trials": 1,
        "ended_total tiny failed trials": 1,
    }
    assert kept.values["trial_seconds tiny"] == 4 * 90


def test_how_a_study_stands_is_told_without_what_is_not_known(
    kept: Kept, gauges: Prometheus
) -> None:
    gauges.watch(STANDING)
    del kept.values["last_epoch_timestamp_seconds tiny"]
    assert kept.values == {
        "running tiny trials": 1,
        "running tiny second rung": 0,
        "running tiny finalists": 0,
        "trials tiny complete": 2,
        "trials tiny pruned": 1,
        "best tiny nll": 0.5,
        "done tiny": 3,
        "target tiny": 9,
        "slots tiny": 2,
        "seconds tiny": 100,
        "gpu_hours tiny": 0,
    }
    gauges.watch(replace(STANDING, running=(), seconds_left=60.0, gpu_hours_left=math.nan))
    assert kept.values["running tiny trials"] == 0
    assert kept.values["seconds_left tiny"] == 60
    assert "gpu_hours_left tiny" not in kept.values


def test_the_wait_for_an_epoch_begins_as_trials_do(
    kept: Kept, gauges: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = "last_epoch_timestamp_seconds tiny"

    def at(now: float) -> None:
        monkeypatch.setattr("search.tracking.prometheus.time.time", lambda: now)

    gauges.watch(replace(STANDING, running=()))
    assert stamp not in kept.values
    at(100)
    gauges.watch(STANDING)
    at(200)
    gauges.watch(STANDING)  # others began, nothing was trained
    assert kept.values[stamp] == 100
    gauges.epoch(TRIAL, 1, {})
    assert kept.values[stamp] == 200


def test_gauges_are_told_again_until_the_end_and_counters_are_not(kept: Kept) -> None:
    gauges = Prometheus("tiny", export=kept, beat=0.01)
    gauges.end(record())
    gauges.watch(STANDING)
    counted, before = dict(kept.values), kept.sent
    wait_for(lambda: kept.sent > before + 30)
    gauges.close()
    after = kept.sent
    assert kept.values == counted
    assert not [thread for thread in threading.enumerate() if thread.name == "metrics"]
    assert kept.sent == after


def test_without_a_running_ray_nothing_is_told_and_no_thread_begins() -> None:
    kept = Kept(running=False)
    gauges = Prometheus("tiny", export=kept)
    gauges.epoch(TRIAL, 1, {})
    gauges.watch(STANDING)
    gauges.end(record())
    gauges.close()
    assert kept.sent == 0
    assert not [thread for thread in threading.enumerate() if thread.name == "metrics"]


class Broken(Kept):
    """A Ray that goes down as it is told."""

    def send(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        super().send(name, value, labels)
        if self.sent > 1:
            raise RuntimeError("Ray went down")


def test_a_ray_that_goes_down_is_tried_again_in_silence() -> None:
    broken = Broken()
    gauges = Prometheus("tiny", export=broken, beat=0.01)
    with pytest.raises(RuntimeError, match=r"Ray went down"):
        gauges.watch(STANDING)
    wait_for(lambda: broken.sent > 5)
    gauges.close()


def test_a_tracker_that_is_asked_for_publishes_and_never_fails_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExperimentConfig.model_validate(
        {"name": "tiny", "output": tmp_path, "dataset": {"sources": [{"folder": tmp_path}]}}
        | {"space": {}}
    )
    broken, warnings, seen = Broken(), list[str](), list[Standing]()
    monkeypatch.setattr(RayExport, "ready", lambda _: True)
    monkeypatch.setattr(RayExport, "send", lambda _, *told: broken.send(*told))
    with open_tracker(config, "tiny", warn=warnings.append) as tracker:
        watch = tracker.watching(lambda standing, _: seen.append(standing))
        watch(STANDING, None)
        watch(STANDING, None)
        tracker.end(record())
    assert seen == [STANDING, STANDING]
    assert broken.values["running tiny trials"] == 1
    assert warnings == ["Prometheus: Ray went down; it hears of no more trials, the study goes on"]


def test_rays_own_metrics_take_every_family() -> None:
    export = RayExport()
    for name, family in FAMILIES.items():
        export.send(name, 1, {"study": "tiny"} | dict.fromkeys(family.keys, "any"))
