"""Two workers on a real Ray Train: the same metrics as one, and nothing left of a stopped trial."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.util import placement_group_table

from search.config import ExperimentConfig
from search.errors import ConsiliumError, InfeasibleError, TrainingError
from search.params import Params
from search.study.intake import take_in
from search.study.records import StudyFolder, TrialRecord
from search.study.trial import Trial, train_trial
from search.study.workers import raise_failure, train_with_workers
from search.training.task import Epoch
from tests.rays import started_ray
from tests.search.study.test_intake import an_experiment

# 11 images of a fold train in batches of 4: the last one holds three.
PARAMS = Params(
    backbone="cnn", image_size=16, hidden=4, batch_size=4, dropout=0, balance="class_weights"
)


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    with started_ray(num_cpus=2):
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    folder = tmp_path_factory.mktemp("study")
    config = an_experiment(folder, fidelity={"max_epochs": 3}, resources={"workers": 2})
    study = StudyFolder(config.study_folder)
    study.write_head(take_in(config, study))
    return config


class StoppedError(Exception):
    """What a scheduler's report may raise."""


@ray.remote(num_cpus=0)
class Caller:
    """What a scheduler's actor is: it trains, and may be killed over it."""

    def __init__(self) -> None:
        self._epochs: list[Epoch] = []

    def train(self, config: ExperimentConfig, trial: Trial, stop_at: int = 99) -> list[Epoch]:
        def report(epoch: Epoch) -> None:
            self._epochs.append(epoch)
            if epoch.number == stop_at:
                raise StoppedError

        train_with_workers(config, trial, report=report)
        return self._epochs

    def hang(self, config: ExperimentConfig, trial: Trial, mark: Path) -> None:
        def report(epoch: Epoch) -> None:
            mark.touch()
            time.sleep(600)

        train_with_workers(config, trial, report=report)


def test_two_workers_come_to_what_one_process_comes_to(config: ExperimentConfig) -> None:
    epochs = ray.get(caller().train.remote(config, Trial(0, PARAMS)))
    train_trial(config, Trial(1, PARAMS))
    study = StudyFolder(config.study_folder)
    together, alone = study.record(0), study.record(1)
    assert len(together.epochs) == 3
    assert the_metrics(together) == pytest.approx(the_metrics(alone), abs=1e-4, nan_ok=True)
    assert [(e.number, e.value, e.last) for e in epochs] == [
        (n, pytest.approx(metrics["nll"]), n == 3) for n, metrics in enumerate(together.epochs, 1)
    ]
    assert {len(epoch.state) for epoch in epochs} == {0}
    assert study.has_weights(0)
    assert until(nothing_is_left)


def test_a_report_that_raises_ends_the_workers_and_the_next_trial_starts(
    config: ExperimentConfig,
) -> None:
    with pytest.raises(StoppedError):
        ray.get(caller().train.remote(config, Trial(2, PARAMS), stop_at=2))
    assert until(nothing_is_left)
    record = StudyFolder(config.study_folder).record(2)
    assert (len(record.epochs), record.error) == (2, None)


def test_a_caller_that_is_killed_leaves_no_workers(
    config: ExperimentConfig, tmp_path: Path
) -> None:
    actor = caller()
    actor.hang.remote(config, Trial(3, PARAMS), tmp_path / "reporting")
    assert until((tmp_path / "reporting").exists)
    assert not nothing_is_left()
    ray.kill(actor)
    assert until(nothing_is_left)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (TrainingError("the loss is nan"), "^the loss is nan$"),
        (InfeasibleError("params_m is 9"), "^params_m is 9$"),
        (ZeroDivisionError("division by zero"), "^a worker failed: division by zero$"),
    ],
)
def test_what_a_worker_fails_by_is_what_the_trial_fails_by(
    failure: Exception, expected: str
) -> None:
    found: dict[int, Exception] = {
        1: RayActorError(),  # which the first one's failure ended
        0: UserExceptionWithTraceback(failure, "where it happened"),
    }
    work: Future[Any] = Future()
    work.set_exception(WorkerGroupError("all lines of it", found))
    with pytest.raises(ConsiliumError, match=expected):
        raise_failure(work)


def caller() -> Any:
    return Caller.remote()  # type: ignore[attr-defined]


def the_metrics(record: TrialRecord) -> dict[str, float]:
    return {
        f"{name} of epoch {n}": float("nan") if value is None else value
        for n, metrics in enumerate(record.epochs)
        for name, value in metrics.items()
        if not name.endswith("seconds")
    }


def nothing_is_left() -> bool:
    """No placement group holds anything, and every CPU is free."""
    groups = placement_group_table().values()
    free = ray.available_resources().get("CPU")  # type: ignore[no-untyped-call]
    return all(group["state"] == "REMOVED" for group in groups) and free == 2


def until(holds: Callable[[], bool], *, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return holds()
