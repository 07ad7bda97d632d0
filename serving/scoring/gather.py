"""Work that waits is taken together, as much of it as a thread should have at once."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from threading import Lock
from typing import Generic, TypeVar

Asked = TypeVar("Asked")
Told = TypeVar("Told")
MOST = 8  # a core scores so many images in one call a quarter faster than one by one


class Gather(Generic[Asked, Told]):
    """Questions of an event loop for a pool of threads.

    Nothing waits for company: a thread that is free takes what is there, its share of it with the
    other threads in mind. So a single question is answered as fast as it can be.
    """

    def __init__(
        self,
        pool: Executor,
        width: int,
        work: Callable[[Sequence[Asked]], Sequence[Told | Exception]],
        *,
        alone: Callable[[Asked], bool] = lambda _: False,
    ) -> None:
        """Begin nothing yet.

        Args:
            width: threads of the pool.
            work: answers questions in their order, each with what is told or what it raises.
            alone: whether a question has nothing from company, or would hold it up.
        """
        self._pool, self._width, self._work, self._alone = pool, width, work, alone
        self._waiting: deque[tuple[Asked, asyncio.Future[Told]]] = deque()
        self._busy = 0  # threads that take
        self._lock = Lock()

    async def __call__(self, question: Asked) -> Told:
        """What is told, or what it raises.

        Raises:
            RuntimeError: the pool is shut.
        """
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._busy < self._width:
                self._pool.submit(self._take)
                self._busy += 1
            self._waiting.append((question, future))
        return await future

    def close(self) -> None:
        """Let go of what still waits: before the pool is shut, which waits for its threads."""
        with self._lock:
            left = list(self._waiting)
            self._waiting.clear()
        for _, future in left:
            with suppress(RuntimeError):  # the loop is closed
                future.get_loop().call_soon_threadsafe(future.cancel)

    def _take(self) -> None:
        """Answer until nothing waits."""
        while taken := self._share():
            told = self._answers([question for question, _ in taken])
            for (_, future), result in zip(taken, told, strict=True):
                with suppress(RuntimeError):  # the loop is closed
                    future.get_loop().call_soon_threadsafe(_settle, future, result)

    def _share(self) -> list[tuple[Asked, asyncio.Future[Told]]]:
        with self._lock:
            if not self._waiting:
                self._busy -= 1
                return []
            most = min(math.ceil(len(self._waiting) / self._width), MOST)
            taken = [self._waiting.popleft()]
            while len(taken) < most and not any(map(self._by_itself, (taken[0], self._waiting[0]))):
                taken.append(self._waiting.popleft())
            return taken

    def _by_itself(self, waiting: tuple[Asked, asyncio.Future[Told]]) -> bool:
        return self._alone(waiting[0])

    def _answers(self, questions: Sequence[Asked]) -> Sequence[Told | Exception]:
        try:
            told = self._work(questions)
        except Exception as error:
            return [error] * len(questions)
        except BaseException as error:  # else who asked would wait for ever
            return [RuntimeError(f"a thread ended: {error!r}")] * len(questions)
        return told


def _settle(future: "asyncio.Future[Told]", result: Told | Exception) -> None:
    if future.done():  # who asked has gone
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
