"""Where the time of a study went: sums over its records, nothing measured here."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from search.study.records import StudyFolder, TrialRecord


class Stint(NamedTuple):
    """One fold of one trial in its worker.

    Attributes:
        start, end: seconds since the epoch.
        steps: seconds inside training and validation, augmentation included.
        first_step: seconds from the start to the first training step; without a note of it in the
            record, all that was not a step: more than it was.
    """

    worker: str
    start: float
    end: float
    steps: float
    first_step: float


class Idle(NamedTuple):
    """Seconds in which slots held no trial: summed over the slots."""

    before: float  # until each slot has had one
    between: float
    after: float  # once the last trial has started


def stints_of(folder: StudyFolder) -> tuple[list[Stint], list[Stint]]:
    """All that was trained, by start: on fold 0, and of the finalists on the others."""
    records = folder.records()
    others = [r for record in records for r in folder.fold_records(record.number)]
    return _stints(records), _stints(others)


def _stints(records: Iterable[TrialRecord]) -> list[Stint]:
    return sorted((stint(r) for r in records if r.started and r.worker), key=lambda s: s.start)


def stint(record: TrialRecord) -> Stint:
    """What a record says of its time; it must have a start and a worker."""
    start = datetime.fromisoformat(record.started or "").timestamp()
    steps = sum(
        epoch[name] or 0 for epoch in record.epochs for name in ("train_seconds", "val_seconds")
    )
    noted: float | None = getattr(record, "setup_seconds", None)
    first = record.seconds - steps if noted is None else noted
    return Stint(record.worker or "", start, start + record.seconds, steps, first)


def idle_of(stints: Sequence[Stint], slots: int, begin: float, end: float) -> Idle:
    """What the slots lost in a phase that lasted from `begin` to `end`."""
    firsts: dict[str, float] = {}
    for s in stints:
        firsts.setdefault(s.worker, s.start)
    if not firsts:
        return Idle((end - begin) * slots, 0, 0)
    warm = sorted(firsts.values())[:slots][-1]
    last = max(s.start for s in stints)
    bounds = [begin, warm, last, end]
    return Idle(*(_unused(stints, slots, a, b) for a, b in pairwise(bounds)))


def _unused(stints: Iterable[Stint], slots: int, begin: float, end: float) -> float:
    used = sum(max(0.0, min(s.end, end) - max(s.start, begin)) for s in stints)
    return max(0.0, (end - begin) * slots - used)


def gaps_of(stints: Iterable[Stint]) -> list[float]:
    """Seconds from each trial's end to the first training step of the next in the same worker."""
    by_worker: dict[str, list[Stint]] = {}
    for s in sorted(stints, key=lambda s: s.start):
        by_worker.setdefault(s.worker, []).append(s)
    return [
        after.start + after.first_step - before.end
        for found in by_worker.values()
        for before, after in pairwise(found)
    ]
