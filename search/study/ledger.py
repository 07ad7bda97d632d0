"""What the driver keeps in mind of every trial that has ended: a few numbers each."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from search.objectives import minimised
from search.study.records import Status, TrialRecord


class Entry(NamedTuple):
    """One ended trial; `values` in the order of the objectives, lower is better."""

    number: int
    status: Status
    recipe: str | None
    promoted: bool
    feasible: bool
    values: tuple[float, ...]
    nll: float


class Ledger:
    """The trials that have ended, ranked; trials that are done again do not count."""

    def __init__(self, objectives: Sequence[str], records: Iterable[TrialRecord] = ()) -> None:
        self._objectives = objectives
        self._entries: dict[int, Entry] = {}
        self.gpu_hours = 0.0
        self.full_seconds: list[float] = []  # of complete trials
        self.best: TrialRecord | None = None
        self._top: Entry | None = None
        for record in records:
            self.note(record)

    def note(self, record: TrialRecord) -> None:
        """Take in a trial that has ended."""
        if record.status == "running":
            return
        self.gpu_hours += record.gpu_hours
        if record.again:
            return
        entry = self._entry(record)
        self._entries[record.number] = entry
        if record.status == "complete":
            self.full_seconds.append(record.seconds)
        if self._ranked(entry) and (self._top is None or _in_order(entry) < _in_order(self._top)):
            self._top, self.best = entry, record

    def counts(self) -> Counter[Status]:
        return Counter(entry.status for entry in self._entries.values())

    def ranking(self) -> list[Entry]:
        """Feasible trials with a value, best first; of several objectives the front comes first."""
        found = sorted((e for e in self._entries.values() if self._ranked(e)), key=_in_order)
        if len(self._objectives) == 1:
            return found
        front: list[Entry] = []
        rest: list[Entry] = []
        for entry in found:  # only what comes before can dominate
            (rest if any(_dominates(e, entry) for e in front) else front).append(entry)
        return [*front, *rest]

    def finalists(self, count: int, *, promoted: bool = True) -> list[int]:
        """Numbers of the best trials that were not stopped early, with or without promoted ones."""
        full = (e for e in self.ranking() if e.status == "complete" and promoted >= e.promoted)
        return [e.number for e in full][:count]

    def worth_keeping(self, keep: int, recipes: frozenset[str]) -> set[int]:
        """Trials whose weights stay.

        The best by the objective, the best by NLL, which the ensemble selects on, and the named
        recipes, which stand beside it.
        """
        ranked = self.ranking()
        by_nll = sorted(ranked, key=lambda e: e.nll)
        named = {e.number for e in ranked if e.recipe in recipes}
        return {e.number for e in [*ranked[:keep], *by_nll[:keep]]} | named

    def _ranked(self, entry: Entry) -> bool:
        return entry.status != "failed" and entry.feasible and len(entry.values) > 0

    def _entry(self, record: TrialRecord) -> Entry:
        known: dict[str, float | None] = {self._objectives[0]: record.value, **record.values}
        given = [(name, known.get(name)) for name in self._objectives]
        values = [v if minimised(name) else -v for name, v in given if v is not None]
        best = record.epochs[record.best_epoch - 1] if record.best_epoch else {}
        nll = best.get("nll")
        return Entry(
            number=record.number,
            status=record.status,
            recipe=record.recipe,
            promoted=record.promoted_from is not None,
            feasible=not record.violations,
            values=tuple(values) if len(values) == len(given) else (),
            nll=float("inf") if nll is None else nll,
        )


def _in_order(entry: Entry) -> tuple[tuple[float, ...], int]:
    return entry.values, entry.number


def _dominates(one: Entry, other: Entry) -> bool:
    pairs = list(zip(one.values, other.values, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
