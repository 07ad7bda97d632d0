"""Slots and the one driver they all wait for, in virtual time."""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

START_S = 1.0  # an assumption: seconds from a trial's params to its first step, in a reused worker


class Driver(Protocol):
    """What serves the slots, one request after another; each answer comes with its seconds."""

    def ask(self) -> tuple[float, str | None, float]:
        """Seconds it took; a new trial, None where no more are wanted; seconds of its epochs."""

    def hear(self, trial: str) -> tuple[float, bool]:
        """An epoch's report: seconds, and whether the trial goes on."""


@dataclass
class Outcome:
    """What became of the slots' time.

    Attributes:
        seconds: virtual, from the first request until the last that was served.
        busy: of these, the driver's.
        filled: when each slot had been served once.
        waited: of all slots, in requests that stood behind others, or were being served.
        asked, reported: how many were served.
    """

    seconds: float = 0.0
    busy: float = 0.0
    filled: float = 0.0
    waited: float = 0.0
    asked: int = 0
    reported: int = 0
    _free: float = field(default=0.0, repr=False)

    def served(self, when: float, seconds: float) -> float:
        """Note a request that came at `when`; when the driver has answered it."""
        self._free = max(when, self._free) + seconds
        self.busy += seconds
        self.waited += self._free - when
        self.seconds = self._free
        return self._free


def play(slots: Sequence[float], driver: Driver) -> Outcome:
    """Let every slot ask for trials until the driver has no more; first come, first served.

    Args:
        slots: when each of them is there, in seconds.
    """
    found, count = Outcome(), itertools.count()
    events: list[tuple[float, int, str | None, float]] = [
        (when, next(count), None, 0.0) for when in slots
    ]
    heapq.heapify(events)
    while events:
        when, _, trial, epoch = heapq.heappop(events)
        if trial is None:
            seconds, begun, epoch = driver.ask()
            if begun is None:
                continue
            free = found.served(when, seconds)
            found.asked += 1
            found.filled = free if found.asked == len(slots) else found.filled
            heapq.heappush(events, (free + START_S + epoch, next(count), begun, epoch))
            continue
        seconds, goes_on = driver.hear(trial)
        free = found.served(when, seconds)
        found.reported += 1
        follows = (free + epoch, trial) if goes_on else (free, None)
        heapq.heappush(events, (follows[0], next(count), follows[1], epoch))
    return found
