"""A request's body as it streams in: counted, timed, and never more than a replica can hold."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.types import Message, Receive

from serving.problems import ProblemError


class ClientGoneError(Exception):
    """The client went away before its body was whole; nobody is left to answer."""


@dataclass
class Room:
    """How many bytes of bodies a replica holds, and may hold."""

    limit: int
    held: int = 0


class Body:
    """The body of one request. Give back what it holds by `release`, whatever happens."""

    def __init__(self, receive: Receive, *, limit: int, seconds: float, room: Room) -> None:
        """Accept at most `limit` bytes, all of them within `seconds` from now."""
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._deadline = asyncio.get_running_loop().time() + seconds
        self._room = room
        self._done = False
        self.count = 0

    async def receive(self) -> Message:
        """As ASGI's receive.

        Raises:
            ProblemError: 408 too late, 413 too long, 429 as the replica holds too much already.
        """
        if self._done:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            raise ProblemError(
                408, "slow_body", f"the body was not whole within {self._seconds:g} s; send again"
            ) from error
        self._done = message["type"] != "http.request" or not message.get("more_body", False)
        self._take(len(message.get("body", b"")))
        return message

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body piece by piece.

        Raises:
            ClientGoneError: it will never be whole.
            ProblemError: as of `receive`.
        """
        while not self._done:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            if message.get("body"):
                yield message["body"]

    def release(self) -> None:
        """Nothing of the body is held any more."""
        self._room.held -= self.count
        self.count = 0

    def _take(self, size: int) -> None:
        if self.count + size > self._limit:
            raise ProblemError(
                413,
                "too_large",
                f"the body has more than {self._limit} bytes; send a smaller one",
            )
        if self._room.held + size > self._room.limit:
            raise ProblemError(
                429,
                "overloaded",
                "too many bytes are on their way here; try again",
                headers={"Retry-After": "1"},
            )
        self.count += size
        self._room.held += size
