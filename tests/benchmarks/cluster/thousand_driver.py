"""The driver's own parts without Ray, each call timed: searcher, ASHA, course, settlement."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, TypeVar

import optuna
from optuna.storages import RDBStorage
from ray.tune.schedulers import TrialScheduler

from search.config import ExperimentConfig
from search.params import Params
from search.study.clock import Clock
from search.study.course import Course
from search.study.queue import RungStudy
from search.study.records import StudyFolder
from search.study.resources import Slots
from search.study.samplers import build_sampler
from search.study.searcher import OptunaSearcher
from search.study.tuner import _scheduler
from search.tracking.trackers import Trackers
from tests.benchmarks.cluster.thousand_storage import (
    ComparedStorage,
    count_statements,
    server_clock,
)
from tests.benchmarks.cluster.thousand_stub import StubTrial
from tests.benchmarks.scale import rss_mb

Kind = Literal["first", "suggest", "report", "end"]
T = TypeVar("T")
COLD = 10  # ended trials before which TPE draws at random; such a suggestion is a "first"
WINDOW = 12  # trials asked for in a row by each storage


@dataclass(frozen=True)
class Call:
    """One call into the driver's parts.

    Attributes:
        optunas: whether running trials are read back each time, as Optuna's own storage does.
        running, ended: trials at that moment.
        wall, cpu: seconds of this process.
        server: CPU seconds of the database's process for it.
        statements: that were sent to the database.
    """

    kind: Kind
    optunas: bool
    running: int
    ended: int
    wall: float
    cpu: float
    server: float
    statements: int

    @property
    def seconds(self) -> float:
        """What it takes where nothing else runs and the network takes no time."""
        return self.cpu + self.server


class Moment(NamedTuple):
    """When the driver is looked at: so many trials run, and so many have ended."""

    running: int
    ended: int


class Places(Slots):
    """Slots of a cluster that is not there."""

    def __init__(self, count: int) -> None:
        self._places = count

    def count(self) -> int:
        return self._places


class RealDriver:
    """Serves the loop by the real parts.

    At each moment come a window with Optuna's own storage, and one with the search's. In between
    params are drawn at random, which takes no time, and nobody looks at it.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        backend: RDBStorage,
        tracker: Trackers,
        *,
        slots: int,
        trials: int,
        moments: Sequence[Moment] = (),
    ) -> None:
        """Begin a study.

        Args:
            trials: that are to end; as many as there are slots are then still running.
            moments: in their order.
        """
        self._config, self._folder = config, StudyFolder(config.study_folder)
        self._folder.create()
        self._storage, self._trials = ComparedStorage(backend), trials
        self.study = optuna.create_study(storage=self._storage, study_name="thousand")
        self.study.sampler = build_sampler(config.sampler, config.space, seed=config.seed)
        self._course = self._begin(config, slots, tracker)
        self._rung = RungStudy(self.study, promoted=False)
        self._samplers = (optuna.samplers.RandomSampler(config.seed), self.study.sampler)
        self._searcher = OptunaSearcher(self._rung, config.space, self._course, mode="min")
        self._asha: Any = _scheduler(config, self.study, "min")
        self._statements, self._server = count_statements(backend), server_clock(backend)
        self._running: dict[str, StubTrial] = {}
        self._moments, self._window, self._left = list(moments), ExitStack(), 0
        self.asked = self.ended = 0
        self.epochs: list[int] = []  # of each ended trial
        self.looks: list[list[Call]] = []  # those of each moment
        self.rss_mb: list[float] = []  # at each moment
        self._seconds = 0.0  # of the last call

    @property
    def calls(self) -> list[Call]:
        """All that were looked at."""
        return [call for look in self.looks for call in look]

    def ask(self) -> tuple[float, str | None, float]:
        if self.ended >= self._trials:
            self._window.close()
            return 0.0, None, 0.0
        self._turn()
        name = f"{self.asked:08x}"
        kind: Kind = "suggest" if self.ended >= COLD else "first"
        settings = self._timed(kind, lambda: self._suggest(name))
        self.asked += 1
        trial = StubTrial(settings["number"], Params.model_validate(settings["params"]))
        self._running[name] = trial
        return self._seconds, name, trial.epoch_s

    def hear(self, trial: str) -> tuple[float, bool]:
        if self.ended >= self._trials:  # those still running are no concern any more
            return 0.0, False
        stub = self._running[trial]
        result = self._result(trial, stub)
        goes_on = self._timed("report", lambda: self._report(trial, result))
        seconds = self._seconds
        if not goes_on:
            stub.leave(self._folder)
            self._timed("end", lambda: self._end(trial, result))
            seconds += self._seconds
            del self._running[trial]
            self.ended += 1
            self.epochs.append(len(stub.record.epochs))
        return seconds, goes_on

    def _begin(self, config: ExperimentConfig, slots: int, tracker: Trackers) -> Course:
        course = Course(
            config,
            self._folder,
            self.study,
            Clock(self._folder.path / "clock.json", config.budget),
            Places(slots),
            tracker=tracker,
            watch=tracker.watching(lambda *_: None),
        )
        course.begin("trials", done=0, target=self._trials + slots)
        return course

    def _turn(self) -> None:
        """Open or close a window."""
        self._left = max(0, self._left - 1)
        if self._left == WINDOW:
            self._window.close()
        at = self._moments[0] if self._moments and not self._left else None
        if at is not None and len(self._running) >= at.running and self.ended >= at.ended:
            del self._moments[0]
            self._window.enter_context(self._storage.as_optuna_does())
            self._left = 2 * WINDOW
            self.looks.append([])
            self.rss_mb.append(rss_mb())
        self._rung.sampler = self._samplers[self._left > 0]

    def _suggest(self, name: str) -> dict[str, Any]:
        settings = self._searcher.suggest(name)
        self._asha.on_trial_add(None, SimpleNamespace(trial_id=name))
        if not isinstance(settings, dict):
            raise self._searcher.failure or RuntimeError(f"the searcher answers {settings!r}")
        return settings

    def _report(self, name: str, result: dict[str, Any]) -> bool:
        """As Tune does: it asks the stopper, then ASHA, and tells the searcher if it goes on."""
        self._course.spent()
        light = SimpleNamespace(trial_id=name)
        if self._asha.on_trial_result(None, light, result) == TrialScheduler.STOP:
            return False
        self._searcher.on_trial_result(name, result)
        return True

    def _end(self, name: str, result: dict[str, Any]) -> None:
        self._searcher.on_trial_complete(name, result)
        self._asha.on_trial_complete(None, SimpleNamespace(trial_id=name), result)
        if self._searcher.failure is not None:
            raise self._searcher.failure

    def _result(self, name: str, stub: StubTrial) -> dict[str, Any]:
        metrics = stub.train()
        number = len(stub.record.epochs)
        return {
            "trial_id": name,
            "epoch": number,
            "objective": metrics["nll"],
            "best": stub.record.value,
            "last": number == self._config.fidelity.max_epochs,
            "metrics": json.dumps(dict(metrics)),
        }

    def _timed(self, kind: Kind, call: Callable[[], T]) -> T:
        running, ended = len(self._running), self.ended
        statements, server = self._statements(), self._server()
        wall, cpu = time.perf_counter(), time.process_time()
        found = call()
        done = Call(
            kind=kind,
            optunas=self._storage.is_optunas,
            running=running,
            ended=ended,
            wall=time.perf_counter() - wall,
            cpu=time.process_time() - cpu,
            server=self._server() - server,
            statements=self._statements() - statements,
        )
        self._seconds = done.seconds
        if self._left:
            self.looks[-1].append(done)
        return found
