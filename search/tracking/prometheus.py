"""A study's numbers among Ray's own metrics: each node's agent serves them to Prometheus.

Ray writes `ray_` before each name. Without a running Ray nothing is published.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event, Lock, Thread
from typing import Any, Literal, NamedTuple, Protocol

from search.study.records import TrialRecord
from search.study.standing import Standing
from search.study.trial import Trial

Kind = Literal["Counter", "Gauge", "Histogram"]
PHASES = ("trials", "second rung", "finalists")
MINUTES = (0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 240, 480, 1440)
# Ray's agent forgets a gauge that is not told again within two reports, of 10 s each.
BEAT = 5.0


class Family(NamedTuple):
    """One metric; each has the study's name as a label besides `keys`."""

    kind: Kind
    about: str
    keys: tuple[str, ...] = ()


FAMILIES = {
    "consilium_search_ended_total": Family(
        "Counter",
        "Trials, and finalists' folds, that ended; again: one that its surroundings failed.",
        ("status", "phase"),
    ),
    "consilium_search_epochs_total": Family("Counter", "Epochs trained.", ("phase",)),
    "consilium_search_trial_seconds": Family("Histogram", "From a trial's start to its end."),
    "consilium_search_trials": Family(
        "Gauge", "Trials that have ended, over all restarts.", ("status",)
    ),
    "consilium_search_running": Family("Gauge", "Trials or folds under way.", ("phase",)),
    "consilium_search_last_epoch_timestamp_seconds": Family(
        "Gauge", "Unix time of the last epoch, or when trials began to train."
    ),
    "consilium_search_best": Family(
        "Gauge", "Best value of the first objective, over all restarts.", ("objective",)
    ),
    "consilium_search_done": Family("Gauge", "Trials, or folds, of this phase that count."),
    "consilium_search_target": Family("Gauge", "Trials, or folds, asked for in this phase."),
    "consilium_search_slots": Family("Gauge", "Trials that the cluster takes at once."),
    "consilium_search_seconds": Family("Gauge", "Wall time spent, over all restarts."),
    "consilium_search_seconds_left": Family("Gauge", "Wall time that the budget leaves."),
    "consilium_search_gpu_hours": Family("Gauge", "GPU hours spent, over all restarts."),
    "consilium_search_gpu_hours_left": Family("Gauge", "GPU hours that the budget leaves."),
}


class Export(Protocol):
    """Where the numbers go."""

    def ready(self) -> bool:
        """Whether they can go there now."""

    def send(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        """Add to a counter, set a gauge, sort into a histogram."""


class Prometheus:
    """Publishes one study: as a tracker what was trained, as a watch how it stands."""

    def __init__(self, study: str, *, export: Export | None = None, beat: float = BEAT) -> None:
        """Publish nothing yet.

        Args:
            export: Ray's metrics where none is given.
            beat: seconds after which gauges are told again.
        """
        self._study, self._beat = study, beat
        self._export = RayExport() if export is None else export
        self._heard: dict[tuple[int, int], int] = {}  # epochs of trials that have not ended
        self._levels: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._lock = Lock()
        self._pulse: Pulse | None = None
        self._busy = False

    def epoch(self, trial: Trial, number: int, metrics: Mapping[str, float | None]) -> None:  # noqa: ARG002
        """Count an epoch, numbered from 1, and those before it that were not heard of."""
        self._train((trial.number, trial.fold), number, _phase(trial))

    def end(self, record: TrialRecord) -> None:
        """Count a trial or a finalist's fold that ended."""
        key, phase = (record.number, record.fold), _phase(record)
        self._train(key, len(record.epochs), phase)
        self._heard.pop(key, None)
        status = "again" if record.again else record.status
        self._send("consilium_search_ended_total", 1, status=status, phase=phase)
        self._send("consilium_search_trial_seconds", record.seconds)

    def watch(self, standing: Standing) -> None:
        """Publish how the study stands; what is not known, the best of no trial, is left out."""
        for phase in PHASES:
            count = len(standing.running) if phase == standing.phase else 0
            self._send("consilium_search_running", count, phase=phase)
        if standing.running and not self._busy:  # they may hang before their first epoch
            self._send("consilium_search_last_epoch_timestamp_seconds", time.time())
        self._busy = bool(standing.running)
        for status, number in standing.counts.items():
            self._send("consilium_search_trials", number, status=status)
        if standing.best is not None:
            self._send("consilium_search_best", standing.best.value, objective=standing.objective)
        for name in ("done", "target", "slots", "seconds", "seconds_left", "gpu_hours"):
            self._send(f"consilium_search_{name}", getattr(standing, name))
        self._send("consilium_search_gpu_hours_left", standing.gpu_hours_left)

    def close(self) -> None:
        """Tell the gauges no more: Ray forgets them within half a minute."""
        if self._pulse is not None:
            self._pulse.close()

    def _train(self, key: tuple[int, int], number: int, phase: str) -> None:
        new = number - self._heard.get(key, 0)
        if new > 0:
            self._heard[key] = number
            self._send("consilium_search_epochs_total", new, phase=phase)
            self._send("consilium_search_last_epoch_timestamp_seconds", time.time())

    def _send(self, name: str, value: float | None, **labels: str) -> None:
        if value is None or not math.isfinite(value) or not self._export.ready():
            return
        with self._lock:
            self._export.send(name, value, {"study": self._study, **labels})
            if FAMILIES[name].kind == "Gauge":
                self._levels[name, tuple(labels.items())] = value
        if self._pulse is None:
            self._pulse = Pulse(self._again, self._beat)

    def _again(self) -> None:
        with self._lock, suppress(Exception):  # Ray may go down at any time
            for (name, labels), value in self._levels.items():
                if self._export.ready():
                    self._export.send(name, value, {"study": self._study, **dict(labels)})


class Pulse:
    """Calls back every so many seconds, in a thread that keeps no process alive."""

    def __init__(self, call: Callable[[], None], seconds: float) -> None:
        self._call, self._seconds, self._ended = call, seconds, Event()
        self._thread = Thread(target=self._go, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Returns once no call is under way."""
        self._ended.set()
        self._thread.join()

    def _go(self) -> None:
        while not self._ended.wait(self._seconds):
            self._call()


class RayExport:
    """Ray's metrics, made when they are first needed."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def ready(self) -> bool:
        """Whether this process is part of a running Ray; Ray is not imported for the answer."""
        ray = sys.modules.get("ray")
        return ray is not None and bool(ray.is_initialized())

    def send(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        kind, metric = FAMILIES[name].kind, self._metric(name)
        tell = {"Counter": "inc", "Gauge": "set", "Histogram": "observe"}[kind]
        getattr(metric, tell)(value, tags=dict(labels))

    def _metric(self, name: str) -> Any:
        if name not in self._made:
            from ray.util import metrics

            family = FAMILIES[name]
            buckets = {"boundaries": [60 * m for m in MINUTES]}
            self._made[name] = getattr(metrics, family.kind)(
                name,
                description=family.about,
                tag_keys=("study", *family.keys),
                **(buckets if family.kind == "Histogram" else {}),
            )
        return self._made[name]


def _phase(trial: Trial | TrialRecord) -> str:
    if trial.fold:
        return "finalists"
    return "trials" if trial.promoted_from is None else "second rung"
