"""How a study stands at a moment: what a live view shows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from search.study.records import Status, TrialRecord


@dataclass(frozen=True)
class RunningTrial:
    """One trial under way; `value` is the first objective of its last epoch, if it has any."""

    number: int
    fold: int
    name: str
    epoch: int
    max_epochs: int
    value: float | None
    seconds: float


@dataclass(frozen=True)
class Standing:
    """A study at a moment.

    Attributes:
        phase: what is being done.
        running: by number.
        counts: trials that have ended, by status.
        done, target: trials that count, and how many are asked for; folds in the finalists' phase.
        best: by the first objective, among the feasible.
        objective: the first one's name.
        seconds, seconds_left: wall time over all restarts, and of its budget; None is no budget.
        gpu_hours, gpu_hours_left: likewise.
        slots: trials that the cluster takes at once.
    """

    phase: Literal["trials", "second rung", "finalists"]
    running: tuple[RunningTrial, ...]
    counts: Mapping[Status, int]
    done: int
    target: int
    best: TrialRecord | None
    objective: str
    seconds: float
    seconds_left: float | None
    gpu_hours: float
    gpu_hours_left: float | None
    slots: int


Watch = Callable[[Standing, TrialRecord | None], None]  # and the trial that has just ended, if any
