"""The course of a study: whether another trial may start, and what everyone hears of each."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from search.config import ExperimentConfig
from search.errors import StudyError
from search.study.clock import Clock
from search.study.ledger import Ledger
from search.study.records import StudyFolder, TrialRecord
from search.study.resources import Slots
from search.study.settle import WORKER_DIED, Settlement
from search.study.standing import RunningTrial, Standing, Watch
from search.study.trial import Trial
from search.tracking.trackers import Tracker

Phase = Literal["trials", "second rung", "finalists"]


@dataclass
class UnderWay:
    """A trial that trains right now."""

    trial: Trial
    epoch: int = 0
    value: float | None = None
    start: float = field(default_factory=time.monotonic)


class Course:
    """Follows the trials of a study from one phase to the next."""

    def __init__(
        self,
        config: ExperimentConfig,
        folder: StudyFolder,
        study: optuna.Study,
        clock: Clock,
        slots: Slots,
        *,
        tracker: Tracker,
        watch: Watch,
    ) -> None:
        self._config, self._tracker, self._watch = config, tracker, watch
        self.ledger = Ledger(config.objectives)
        self.clock, self.slots = clock, slots
        self._settlement = Settlement(folder, study, self.ledger, config)
        self._under_way: dict[tuple[int, int], UnderWay] = {}
        self.phase: Phase = "trials"
        self.done = self.target = 0
        self._folder, self._outside = folder, ""

    @cached_property
    def folds(self) -> list[int]:
        """Those that finalists train on besides."""
        return self._folder.further_folds()

    def begin(self, phase: Phase, *, done: int, target: int) -> None:
        """Turn to another phase."""
        self.phase, self.done, self.target = phase, done, target

    def spent(self) -> str | None:
        """Which budget is used up, if one is; asked all the time, so the clock is kept here."""
        self.clock.save()
        if self.clock.seconds_left() == 0:
            return f"budget.minutes ({self._config.budget.minutes:g})"
        if self.clock.gpu_hours_left(self._gpu_hours()) == 0:
            return f"budget.gpu_hours ({self._config.budget.gpu_hours:g})"
        return None

    def wants_another(self, under_way: int) -> bool:
        """Whether one more trial may start: it is asked for, fits, and time is left for it."""
        return (
            self.done + under_way < self.target
            and under_way < self.slots.count()
            and not self._outside
            and not self._too_late()
        )

    def waits(self) -> bool:
        """Whether trials are wanted that only find no place now: a node may come back."""
        return (
            self.done < self.target
            and self.slots.count() == 0
            and not self.is_outside
            and not self._too_late()
        )

    @property
    def is_outside(self) -> bool:
        """Whether something other than its params failed a trial: a full disk, say."""
        return bool(self._outside)

    def raise_outside(self) -> None:
        """Say what stopped the trials, where it was not their params: a full disk, say.

        Raises:
            StudyError: something did.
        """
        if self._outside:
            raise StudyError(
                f"{self._folder.path}: {self._outside}; mend it and run the same command again"
            )

    def began(self, trial: Trial) -> None:
        self._under_way[trial.number, trial.fold] = UnderWay(trial)
        self._tell()

    def reported(self, number: int, result: Mapping[str, Any]) -> None:
        trial = self._under_way[number, 0]
        trial.epoch, trial.value = int(result["epoch"]), float(result["objective"])
        self._tracker.epoch(trial.trial, trial.epoch, json.loads(result["metrics"]))
        self._tell()

    def ended(self, asked: optuna.Trial, state: TrialState, reason: str | None = None) -> None:
        self._under_way.pop((asked.number, 0), None)
        record = self._settlement.end(asked, state, reason)
        if record.again and reason is None and record.error != WORKER_DIED:  # nor will the next do
            self._outside = record.error or ""
        self._note(record)

    def fold_ended(self, record: TrialRecord) -> None:
        """A finalist's fold ended."""
        self._under_way.pop((record.number, record.fold), None)
        self.ledger.gpu_hours += record.gpu_hours
        self._outside = (record.error or "") if record.again else self._outside
        self._note(record)

    def _note(self, record: TrialRecord) -> None:
        self.done += not record.again
        self._tracker.end(record)
        self._tell(record)

    def _tell(self, ended: TrialRecord | None = None) -> None:
        self._watch(self.standing(), ended)

    def _too_late(self) -> bool:
        """Whether what is left of the budget is needed by the finalists.

        They train as long as complete trials did, as many at once as there are slots.
        """
        left, full = self.clock.seconds_left(), self.ledger.full_seconds
        if self.spent() is not None:
            return True
        if left is None or not full or self.phase != "trials" or not self.slots.count():
            return False
        each = len(self.folds) + (self._config.fidelity.image_size is not None)
        trainings = self._config.fidelity.finalists * each
        typical = sum(full[-10:]) / len(full[-10:])
        return left < trainings / self.slots.count() * typical

    def _gpu_hours(self) -> float:
        resources = self._config.resources
        gpus = resources.gpu * resources.workers
        now = time.monotonic()
        running = sum(now - trial.start for trial in self._under_way.values())
        return self.ledger.gpu_hours + running / 3600 * gpus

    def standing(self) -> Standing:
        """How the study stands now."""
        now = time.monotonic()
        return Standing(
            phase=self.phase,
            running=tuple(
                RunningTrial(
                    number=t.trial.number,
                    fold=t.trial.fold,
                    name=t.trial.recipe or t.trial.params.backbone,
                    epoch=t.epoch,
                    max_epochs=t.trial.epochs or self._config.fidelity.max_epochs,
                    value=t.value,
                    seconds=now - t.start,
                )
                for t in self._under_way.values()
            ),
            counts=self.ledger.counts(),
            done=self.done,
            target=self.target,
            best=self.ledger.best,
            objective=self._config.objectives[0],
            seconds=self.clock.seconds,
            seconds_left=self.clock.seconds_left(),
            gpu_hours=self._gpu_hours(),
            gpu_hours_left=self.clock.gpu_hours_left(self._gpu_hours()),
            slots=self.slots.count(),
        )
