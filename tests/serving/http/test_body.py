"""The body of a request: counted, timed, and bounded over all requests."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from serving.http.body import Body, ClientGoneError, Room
from serving.problems import ProblemError


def body_of(
    messages: Sequence[dict[str, Any]], *, room: Room | None = None, seconds: float = 10
) -> Body:
    """A body of these messages; after the last one nothing comes any more."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.sleep(60)
        return left.pop(0)

    return Body(receive, limit=100, seconds=seconds, room=room or Room(1000))


def part(size: int, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": bytes(size), "more_body": more}


async def read(body: Body) -> int:
    return sum([len(chunk) async for chunk in body.chunks()])


def test_a_body_is_read_to_its_end() -> None:
    async def go() -> tuple[int, int]:
        body = body_of([part(30), part(0), part(70, more=False), part(1)])
        return await read(body), body.count

    assert asyncio.run(go()) == (100, 100)


def test_a_byte_too_many_is_refused_and_nothing_after_it_is_read() -> None:
    async def go() -> None:
        body = body_of([part(60), part(41), part(1, more=False)])
        with pytest.raises(ProblemError, match=r"more than 100 bytes") as refused:
            await read(body)
        assert (refused.value.status, body.count) == (413, 60)

    asyncio.run(go())


def test_a_body_that_does_not_come_to_its_end_in_time_is_given_up() -> None:
    async def go() -> None:
        with pytest.raises(ProblemError, match=r"not whole within 0\.02 s") as refused:
            await read(body_of([part(10)], seconds=0.02))
        assert (refused.value.status, refused.value.code) == (408, "slow_body")

    asyncio.run(go())


def test_who_goes_away_is_not_answered() -> None:
    async def go() -> None:
        with pytest.raises(ClientGoneError):
            await read(body_of([part(10), {"type": "http.disconnect"}]))

    asyncio.run(go())


def test_all_bodies_together_are_bounded_and_give_their_room_back() -> None:
    async def go() -> None:
        room = Room(100)
        first, second = body_of([part(80)], room=room), body_of([part(30)], room=room)
        await first.receive()
        with pytest.raises(ProblemError, match=r"too many bytes are on their way") as refused:
            await second.receive()
        assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
        first.release()
        second.release()
        assert room.held == 0
        await body_of([part(100)], room=room).receive()

    asyncio.run(go())
