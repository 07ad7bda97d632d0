"""Work in flight: bounded, and equal work done once."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from serving.problems import ProblemError

T = TypeVar("T")
RETRY_AFTER_S = 1


class Flight(Generic[T]):
    """Pieces of work by key: who asks for one that is under way waits for the same.

    Used on one event loop. A caller who goes away leaves the work to the others.
    """

    def __init__(self, limit: int) -> None:
        """Take at most so many pieces at a time, those that wait included."""
        self._limit = limit
        self._under_way: dict[Hashable, asyncio.Future[T]] = {}

    def __len__(self) -> int:
        """Pieces that wait or are done now."""
        return len(self._under_way)

    async def all(self, jobs: Sequence[tuple[Hashable, Callable[[], Awaitable[T]]]]) -> list[T]:
        """The results of these jobs, in their order; all of them are begun, or none.

        Raises:
            ProblemError: 429, as they are too many; else what a job raises.
        """
        new = {key for key, _ in jobs} - self._under_way.keys()
        if len(self._under_way) + len(new) > self._limit:
            raise ProblemError(
                429,
                "overloaded",
                f"{len(self._under_way)} images wait here already; try again",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        shared = [self._begin(key, job) for key, job in jobs]
        return await asyncio.gather(*(asyncio.shield(future) for future in shared))

    def _begin(self, key: Hashable, job: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        if key in self._under_way:
            return self._under_way[key]
        future = asyncio.ensure_future(job())
        self._under_way[key] = future
        future.add_done_callback(lambda _: self._under_way.pop(key, None))
        return future
