"""How many requests one API key may send: a token bucket for each."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from serving.config import RateConfig
from serving.problems import ProblemError

MAX_BUCKETS = 10_000  # about 2 MB


class Rates:
    """Buckets that hold `burst` tokens and gain `per_minute` of them; for one event loop.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, config: RateConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = float(config.burst)
        self._per_second = config.per_minute / 60
        self._clock = clock
        # Name to (tokens, when they were counted), the longest unused first.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Buckets held, at most MAX_BUCKETS."""
        return len(self._buckets)

    def take(self, name: str, cost: float = 1.0) -> None:
        """Take tokens out of a name's bucket; a refusal takes none.

        What costs more than a whole bucket passes when the bucket is full, and leaves a debt:
        the average holds.

        Args:
            name: a key's id.
            cost: tokens, above 0.

        Raises:
            ProblemError: 429 with Retry-After.
        """
        now = self._clock()
        tokens, counted = self._buckets.get(name, (self._burst, now))
        tokens = min(self._burst, tokens + (now - counted) * self._per_second)
        lacking = min(cost, self._burst) - tokens
        passes = lacking <= 1e-9  # time adds up with rounding errors
        self._buckets[name] = (tokens - cost if passes else tokens, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MAX_BUCKETS:
            # The longest unused has refilled most; a full bucket is as good as none.
            self._buckets.popitem(last=False)
        if not passes:
            raise _rate_limited(math.ceil(lacking / self._per_second))


def _rate_limited(seconds: int) -> ProblemError:
    wait = max(1, seconds)
    return ProblemError(
        429,
        "rate_limited",
        f"too many requests; wait {wait} s",
        headers={"Retry-After": str(wait)},
    )
