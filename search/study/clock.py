"""What a study has spent, over all its restarts, and what its budget leaves."""

import json
import time

from search.atomic import write_json
from search.config import BudgetConfig
from search.location import Place, read_bytes

SAVE_EVERY = 5.0  # seconds; so much is forgotten at most when the driver is killed


class Clock:
    """Wall time of a study, kept in clock.json."""

    def __init__(self, file: Place, budget: BudgetConfig) -> None:
        self._file, self._budget = file, budget
        self._before = _stored(file)
        self._start = time.monotonic()
        self._saved = float("-inf")

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return self._before + time.monotonic() - self._start

    def seconds_left(self) -> float | None:
        """Of the budget; None is no budget."""
        minutes = self._budget.minutes
        return None if minutes is None else max(0.0, minutes * 60 - self.seconds)

    def gpu_hours_left(self, spent: float) -> float | None:
        """Of the budget; None is no budget."""
        hours = self._budget.gpu_hours
        return None if hours is None else max(0.0, hours - spent)

    def save(self, *, now: bool = False) -> None:
        """Write it down, every few seconds at the most unless `now`."""
        if now or time.monotonic() - self._saved > SAVE_EVERY:
            self._saved = time.monotonic()
            write_json(self._file, {"seconds": round(self.seconds, 1)})


def _stored(file: Place) -> float:
    try:
        return float(json.loads(read_bytes(file))["seconds"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0.0
