"""What follows a study's numbers besides its records: TensorBoard files, and MLflow if asked."""

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from textwrap import shorten
from types import TracebackType
from typing import Protocol, Self

from search.config import ExperimentConfig
from search.errors import ConsiliumError, StudyError
from search.study.records import TrialRecord
from search.study.standing import Standing, Watch
from search.study.trial import Trial
from search.tracking.aside import Aside
from search.tracking.mlflow import MLflow
from search.tracking.prometheus import Prometheus
from search.tracking.tensorboard import TensorBoard

Metrics = Mapping[str, float | None]
BACKLOG = 200  # epochs and ends that a slow server may be behind
PASSWORD = re.compile(r"(?<=://)[^/@\s]*@")  # and the user, in a URI


class Tracker(Protocol):
    """Hears of every epoch and of every trial's end."""

    def epoch(self, trial: Trial, number: int, metrics: Metrics) -> None:
        """Note an epoch, numbered from 1; what is not finite is left out."""

    def end(self, record: TrialRecord) -> None:
        """Note how a trial ended, and those of its epochs that were not heard of."""

    def close(self) -> None:
        """Leave nothing open; trials that have not ended stay unfinished."""


class TrialLog(Protocol):
    """One trial somewhere; `epochs` are in it already."""

    @property
    def epochs(self) -> int: ...

    def epoch(self, number: int, values: Mapping[str, float]) -> None: ...

    def end(self, record: TrialRecord) -> None:
        """Note the end, and close."""

    def close(self) -> None: ...


class Destination(Protocol):
    """Somewhere to log trials to."""

    def begin(self, name: str, trial: Trial) -> TrialLog:
        """Start a trial's log, or take up what a killed search left of it."""

    def close(self) -> None: ...


def open_tracker(
    config: ExperimentConfig, study_name: str, *, warn: Callable[[str], None] = lambda _: None
) -> "Trackers":
    """TensorBoard files below the output folder, Ray's metrics, and MLflow where it is asked for.

    Args:
        warn: hears once of each that fails later on.

    Raises:
        ConfigError: MLflow is asked for and not installed.
        StudyError: MLflow cannot be reached or does not take the study.
    """
    trackers: dict[str, Tracker] = {
        "TensorBoard": Follower(TensorBoard(config.output / "tensorboard")),
        "Prometheus": Prometheus(study_name),
    }
    if config.tracking.mlflow is not None:
        server = Follower(_reach(config, config.tracking.mlflow, study_name))
        trackers["MLflow"] = Distant(server)
    return Trackers(trackers, warn)


class Trackers:
    """Several trackers as one. One that fails is named once and left out; no trial suffers."""

    def __init__(self, trackers: Mapping[str, Tracker], warn: Callable[[str], None]) -> None:
        self._trackers, self._warn = dict(trackers), warn

    def epoch(self, trial: Trial, number: int, metrics: Metrics) -> None:
        self._each(lambda tracker: tracker.epoch(trial, number, metrics))

    def end(self, record: TrialRecord) -> None:
        self._each(lambda tracker: tracker.end(record))

    def watching(self, watch: Watch) -> Watch:
        """The same watch; whoever publishes how the study stands hears of it first."""

        def heard(standing: Standing, ended: TrialRecord | None) -> None:
            self._each(lambda tracker: _stands(tracker, standing))
            watch(standing, ended)

        return heard

    def close(self) -> None:
        self._each(lambda tracker: tracker.close())
        self._trackers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                tell(tracker)
            except Exception as error:
                del self._trackers[name]
                with suppress(Exception):
                    tracker.close()
                self._warn(
                    f"{name}: {_reason(error)}; it hears of no more trials, the study goes on"
                )


class Follower:
    """A tracker that logs to one destination."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._logs: dict[str, TrialLog] = {}

    def epoch(self, trial: Trial, number: int, metrics: Metrics) -> None:
        log = self._log(trial)
        if number > log.epochs:
            known = {name: value for name, value in metrics.items() if value is not None}
            log.epoch(number, {n: float(v) for n, v in known.items() if math.isfinite(v)})

    def end(self, record: TrialRecord) -> None:
        trial = Trial(record.number, record.params, record.recipe, record.fold)
        for number, metrics in enumerate(record.epochs, 1):
            self.epoch(trial, number, metrics)
        log = self._log(trial)
        del self._logs[_name(trial)]
        log.end(record)

    def close(self) -> None:
        while self._logs:
            self._logs.popitem()[1].close()
        self._destination.close()

    def _log(self, trial: Trial) -> TrialLog:
        name = _name(trial)
        if name not in self._logs:
            self._logs[name] = self._destination.begin(name, trial)
        return self._logs[name]


class Distant:
    """A tracker that may be slow, told in a thread of its own: the search does not wait for it."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker, self._aside = tracker, Aside()

    def epoch(self, trial: Trial, number: int, metrics: Metrics) -> None:
        if self._aside.waiting < BACKLOG:  # the trial's end brings those that are left out here
            self._aside.do(lambda: self._tracker.epoch(trial, number, metrics))

    def end(self, record: TrialRecord) -> None:
        self._aside.do(lambda: self._tracker.end(record))

    def close(self) -> None:
        self._aside.do(self._tracker.close)
        self._aside.close()


def _stands(tracker: Tracker, standing: Standing) -> None:
    if isinstance(tracker, Prometheus):
        tracker.watch(standing)


def _name(trial: Trial) -> str:
    return f"{trial.number:05d}" + (f"_fold_{trial.fold}" if trial.fold else "")


def _reach(config: ExperimentConfig, uri: str, study_name: str) -> MLflow:
    try:
        return MLflow(uri, study_name, str(config.study_folder))
    except ConsiliumError:
        raise
    except Exception as error:
        message = (
            f"tracking.mlflow: {uri} cannot be used ({_reason(error)}); "
            "start the server, or take the key out of the config"
        )
        raise StudyError(PASSWORD.sub("", message)) from error


def _reason(error: BaseException) -> str:
    """What the system said at the bottom of an error, or else the error's first line."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError):
            error = below
        below = below.__cause__ or below.__context__
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return shorten(text.splitlines()[0], 200, placeholder="…")
