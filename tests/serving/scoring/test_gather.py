"""Who waits is answered together, each with an answer or an error of its own."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serving.scoring.gather import MOST, Gather


class Work:
    """Doubles numbers; what is below zero is refused. The first call can be held up."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(self, questions: Sequence[int]) -> list[int | Exception]:
        self.sizes.append(len(questions))
        self.begun.set()
        assert self.go_on.wait(30)
        return [ValueError(str(n)) if n < 0 else 2 * n for n in questions]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


async def told(gather: Gather[int, int], *numbers: int) -> list[int | BaseException]:
    return await asyncio.gather(*(gather(n) for n in numbers), return_exceptions=True)


async def told_later(
    gather: Gather[int, int], work: Work, first: int, *rest: int
) -> list[int | BaseException]:
    """The same, where the first one holds the thread up until all others wait."""
    work.go_on.clear()
    held = asyncio.create_task(gather(first))
    assert await asyncio.to_thread(work.begun.wait, 30)
    others = asyncio.create_task(told(gather, *rest))
    await asyncio.sleep(0)
    work.go_on.set()
    return [await held, *await others]


def test_each_is_told_its_own(work: Work, pool: ThreadPoolExecutor) -> None:
    found = asyncio.run(told(Gather(pool, 1, work), 1, -2, 3))
    assert (found[0], str(found[1]), found[2]) == (2, "-2", 6)


def test_what_waits_is_taken_together_but_not_without_end(
    work: Work, pool: ThreadPoolExecutor
) -> None:
    numbers = range(MOST + 3)
    found = asyncio.run(told_later(Gather(pool, 1, work), work, 100, *numbers))
    assert found == [200, *(2 * n for n in numbers)]
    assert work.sizes == [1, MOST, 3]


def test_a_thread_leaves_the_others_their_share(work: Work, pool: ThreadPoolExecutor) -> None:
    found = asyncio.run(told_later(Gather(pool, 3, work), work, 0, 1, 2, 3, 4, 5, 6))
    assert found == [0, 2, 4, 6, 8, 10, 12]
    assert work.sizes == [1, 2, 2, 1, 1]


def test_what_breaks_is_told_to_all_that_were_taken(pool: ThreadPoolExecutor) -> None:
    def fail(_: Sequence[int]) -> list[int | Exception]:
        raise MemoryError

    found = asyncio.run(told(Gather(pool, 1, fail), 1, 2))
    assert [type(one) for one in found] == [MemoryError, MemoryError]


def test_a_thread_that_is_told_to_end_leaves_nobody_waiting(pool: ThreadPoolExecutor) -> None:
    def leave(_: Sequence[int]) -> list[int | Exception]:
        raise SystemExit(3)

    found = asyncio.run(told(Gather(pool, 1, leave), 1, 2))
    assert [str(one) for one in found] == ["a thread ended: SystemExit(3)"] * 2


def test_who_has_nothing_from_company_is_taken_alone(work: Work, pool: ThreadPoolExecutor) -> None:
    gather: Gather[int, int] = Gather(pool, 1, work, alone=lambda number: number > 9)
    found = asyncio.run(told_later(gather, work, 0, 1, 2, 10, 11, 3, 4))
    assert found == [0, 2, 4, 20, 22, 6, 8]
    assert work.sizes == [1, 2, 1, 1, 2]


def test_threads_are_asked_no_more_often_than_there_are_threads(work: Work) -> None:
    with ThreadPoolExecutor(2) as pool:
        gather: Gather[int, int] = Gather(pool, 2, work)
        work.go_on.clear()

        async def ask() -> int:
            asked = asyncio.create_task(told(gather, *range(40)))
            assert await asyncio.to_thread(work.begun.wait, 30)
            most = pool._work_queue.qsize()
            work.go_on.set()
            await asked
            return most

        assert asyncio.run(ask()) == 0
    assert gather._busy == 0


def test_who_has_gone_is_told_nothing(work: Work, pool: ThreadPoolExecutor) -> None:
    async def ask() -> int:
        gather: Gather[int, int] = Gather(pool, 1, work)
        work.go_on.clear()
        gone = asyncio.create_task(gather(1))
        assert await asyncio.to_thread(work.begun.wait, 30)
        gone.cancel()
        work.go_on.set()
        return await gather(2)

    assert asyncio.run(ask()) == 4


def test_what_waits_as_it_closes_is_let_go(work: Work, pool: ThreadPoolExecutor) -> None:
    async def ask() -> list[object]:
        gather: Gather[int, int] = Gather(pool, 1, work)
        work.go_on.clear()
        first = asyncio.create_task(gather(1))
        assert await asyncio.to_thread(work.begun.wait, 30)
        second = asyncio.create_task(gather(2))
        await asyncio.sleep(0)
        gather.close()
        work.go_on.set()
        return list(await asyncio.gather(first, second, return_exceptions=True))

    found = asyncio.run(ask())
    assert found[0] == 2
    assert isinstance(found[1], asyncio.CancelledError)
