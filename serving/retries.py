"""When a request is sent again, and after how long: decisions only, no socket and no sleep."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from search.errors import ConfigError

BUSY = (429, 503)
MAX_SECONDS = 86_400.0


@dataclass(frozen=True)
class Retries:
    """How patient a client is.

    Attributes:
        attempts: at most, the first one included.
        base_s: longest wait after the first attempt; doubles with each.
        cap_s: longest wait of the client's own accord.
        deadline_s: for the whole call, waits included.

    Raises:
        ConfigError: a value that no call can keep to.
    """

    attempts: int = 4
    base_s: float = 0.2
    cap_s: float = 5
    deadline_s: float = 60

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"attempts {self.attempts}: at least 1, the first counts")
        if not (0 <= self.base_s <= MAX_SECONDS and 0 <= self.cap_s <= MAX_SECONDS):
            raise ConfigError(f"base_s {self.base_s}, cap_s {self.cap_s}: 0 to {MAX_SECONDS:.0f} s")
        if not 0 < self.deadline_s <= MAX_SECONDS:
            raise ConfigError(f"deadline_s {self.deadline_s}: above 0, to {MAX_SECONDS:.0f} s")

    def wait(self, attempt: int, retry_after: float | None, rng: random.Random) -> float:
        """Seconds to wait after an attempt, counted from 1.

        Full jitter; on top of what the service asks for, so that those it turned away together
        come back apart and none too early.

        Source: Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015.
        """
        longest = min(self.cap_s, self.base_s * 2.0 ** min(attempt - 1, 60))
        return (retry_after or 0) + rng.uniform(0, longest)


class Attempts:
    """The attempts of one call: told of each failure, says how long to wait for the next."""

    def __init__(
        self,
        retries: Retries,
        *,
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._retries, self._rng, self._clock = retries, rng, clock
        self._failed = 0
        self._end = clock() + retries.deadline_s

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self._end - self._clock())

    def next_wait(self, retry_after: float | None = None) -> float | None:
        """Seconds to wait after one more failure; None where none is to follow.

        None, too, where the service asks for more than the deadline leaves: to come sooner would
        not help it.
        """
        self._failed += 1
        if self._failed >= self._retries.attempts:
            return None
        wait = self._retries.wait(self._failed, retry_after, self._rng)
        return wait if wait < self.left_s else None


def is_busy(status: int) -> bool:
    """Whether an HTTP status says that the same request may be answered later."""
    return status in BUSY


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds, 0 to a day, of a Retry-After header; None where it is absent or means nothing.

    Source: RFC 9110, 10.2.3: a number of seconds or a date.
    """
    text = (value or "").strip()[:64]
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_SECONDS)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), MAX_SECONDS)
