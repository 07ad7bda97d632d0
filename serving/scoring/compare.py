"""What another bundle says of the same images, asked behind the answers' back.

A comparison never delays an answer: it waits in a short queue, one thread of the lowest priority
works it off, and what has no room is dropped and counted.
"""

import contextlib
import logging
import math
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

logger = logging.getLogger("consilium.compare")

Said = tuple[str | None, float]  # the decision, and the probability of the positive class
Ask = Callable[[], Said]
Report = Callable[[str, bool, float], None]

LOWEST = 19  # nice value
PATIENCE_S = 5  # for the comparison under way when the service ends


@dataclass(frozen=True)
class Counts:
    """How often two bundles agreed.

    Attributes:
        dropped: comparisons that found no room, or that the end came before.
        failed: the other bundle raised, or gave what is no number; of a canary, its own answers
            that failed, too.
        largest: difference of the two probabilities, 0 to 1; so is mean.
    """

    agreements: int = 0
    disagreements: int = 0
    dropped: int = 0
    failed: int = 0
    largest: float = 0.0
    mean: float = 0.0

    def compared(self, *, agree: bool, difference: float) -> "Counts":
        """These and one more."""
        n = self.agreements + self.disagreements
        return replace(
            self,
            agreements=self.agreements + agree,
            disagreements=self.disagreements + (not agree),
            largest=max(self.largest, difference),
            mean=self.mean + (difference - self.mean) / (n + 1),
        )


Task = tuple[dict[str, Counts], str, Said, Ask]


class Comparison:
    """A queue of comparisons and the thread that works it off."""

    def __init__(self, report: Report | None = None, *, room: int = 64) -> None:
        """Start the thread.

        Args:
            report: is told role, agreement and difference of each comparison, in that thread.
            room: comparisons that may wait.
        """
        self._report = report
        self._waiting: queue.Queue[Task | None] = queue.Queue(room)
        self._lock = threading.Lock()
        self._counts: dict[str, Counts] = {}  # each task holds on to the one it began under
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="compare", daemon=True)
        self._thread.start()

    def offer(self, role: str, said: Said, ask: Ask) -> bool:
        """Have another bundle asked when there is time; never waits.

        Args:
            role: of the other bundle, which the counts are kept by.
            said: what was answered.
            ask: asks the other bundle about the same image; best in the thread that calls it, for
                only that one has the low priority.

        Returns:
            False where it was dropped.
        """
        counts = self._counts
        if self._closed:
            self._drop(counts, role)
            return False
        try:
            self._waiting.put_nowait((counts, role, said, ask))
        except queue.Full:
            self._drop(counts, role)
            return False
        return True

    def failed(self, role: str) -> None:
        """Count an answer that the bundle with this role owed and could not give."""
        self._fail(self._counts, role)

    def counts(self) -> dict[str, Counts]:
        """What came out so far, by role."""
        with self._lock:
            return dict(self._counts)

    def reset(self) -> None:
        """Count from nothing: another bundle has the role now.

        What still waits is about the one before, and counts there, where nobody looks any more.
        """
        with self._lock:
            self._counts = {}

    def close(self) -> None:
        """Drop what waits and end the thread. May be called twice."""
        if self._closed:
            return
        self._closed = True
        try:
            while (task := self._waiting.get_nowait()) is not None:
                self._drop(task[0], task[1])
        except queue.Empty:
            self._waiting.put(None)
        self._thread.join(PATIENCE_S)

    def _work(self) -> None:
        if sys.platform == "linux":  # elsewhere a thread has no priority of its own
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        while (task := self._waiting.get()) is not None:
            self._compare(*task)
            del task  # it holds an image, and perhaps the last hold on a bundle let go

    def _compare(self, counts: dict[str, Counts], role: str, said: Said, ask: Ask) -> None:
        try:
            agree, difference = _compared(said, ask())
            if self._report is not None:
                self._report(role, agree, difference)
        except Exception:  # whatever it is, the answer has been given and must not suffer
            if self._fail(counts, role) == 1:  # one is enough: the next fail in the same way
                logger.exception("a comparison with the %s failed", role)
            return
        with self._lock:
            counts[role] = counts.get(role, Counts()).compared(agree=agree, difference=difference)

    def _fail(self, counts: dict[str, Counts], role: str) -> int:
        with self._lock:
            now = counts.get(role, Counts())
            counts[role] = replace(now, failed=now.failed + 1)
        return now.failed + 1

    def _drop(self, counts: dict[str, Counts], role: str) -> None:
        with self._lock:
            now = counts.get(role, Counts())
            counts[role] = replace(now, dropped=now.dropped + 1)


def _compared(said: Said, other: Said) -> tuple[bool, float]:
    difference = abs(said[1] - other[1])
    if not math.isfinite(difference):
        raise ValueError("a probability is no number")
    return said[0] == other[0], difference
