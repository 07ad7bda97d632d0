"""What was begun and never ended: the images that kill the process which scores them."""

from collections import Counter
from typing import Any

MOST = 100  # processes that die; then no image is to blame


class Deaths:
    """An actor of its own, which outlives those that score."""

    def __init__(self) -> None:
        self._open: Counter[tuple[int, int]] = Counter()
        self._all = 0

    def begin(self, shard: int, row: int) -> tuple[int, int]:
        """Note that it is begun; how often that had no end, and how many such there are in all.

        Args:
            row: within the shard; -1 for the whole of it.
        """
        before = self._open[shard, row]
        self._open[shard, row] += 1
        self._all += row < 0 and before > 0
        return before, self._all

    def end(self, shard: int, row: int) -> None:
        """Note that it came to an end."""
        self._open.pop((shard, row), None)


def start_deaths() -> Any:
    """The actor's handle; it takes no CPU from those that score. Ray must be connected."""
    import ray

    return ray.remote(Deaths).options(num_cpus=0, max_restarts=-1).remote()
