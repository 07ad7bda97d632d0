"""A load generator in a process of its own: it shares the cores, so it does as little as it can.

`python -m tests.benchmarks.serve.load URL IMAGES --clients 32 --seconds 5` prints one JSON object.
Closed loop: each client sends its next image when its last is answered. With `--rate` an open
one: images leave at that pace whatever comes back, on at most `--clients` connections.
"""

import argparse
import asyncio
import json
import math
import os
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks.serve.answers import Answer, AnswerError

OK = 200
TICK_S = 0.002  # of the open loop
PAUSE_S = 0.05  # before a lost or refused connection is tried again
CONNECT_S = 10.0
KEY = "BENCH_KEY"  # where the environment holds an API key: a command line is seen by all


@dataclass
class Counts:
    """What came back.

    Attributes:
        latencies: seconds of each answer of status 200, also of those after the window.
        within: answers of status 200 before the window's end.
        lost: connections that ended before their answer; refused: could not be made.
        unanswered: requests still open at the deadline; unsent: without a free connection.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    within: int = 0
    lost: int = 0
    refused: int = 0
    unanswered: int = 0
    unsent: int = 0

    @property
    def errors(self) -> int:
        """Requests without a good answer; 429 counts, unsent ones do not."""
        bad = sum(n for status, n in self.statuses.items() if status != OK)
        return bad + self.lost + self.refused + self.unanswered

    def summary(self, seconds: float) -> dict[str, Any]:
        """As printed."""
        return {
            "images_s": self.within / seconds,
            "p50_ms": _at(self.latencies, 0.5),
            "p99_ms": _at(self.latencies, 0.99),
            "max_ms": _at(self.latencies, 1.0),
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "errors": self.errors,
            "lost": self.lost,
            "refused": self.refused,
            "unanswered": self.unanswered,
            "unsent": self.unsent,
        }


class Load:
    """Requests sent to one address for some seconds, and what came back."""

    def __init__(
        self, requests: Sequence[bytes], *, clients: int, seconds: float, rate: float | None = None
    ) -> None:
        self.counts = Counts()
        self.seconds = seconds
        self._requests, self._sent = requests, 0
        self._clients, self._rate = clients, rate
        self._idle: deque[_Connection] = deque()
        self.end = math.inf

    async def drive(self, host: str, port: int, *, grace: float = 30) -> Counts:
        """Send until the window ends, wait for what is open, never longer than the grace."""
        self.end = perf_counter() + self.seconds
        tasks = [asyncio.create_task(self._client(host, port)) for _ in range(self._clients)]
        if self._rate is not None:
            tasks.append(asyncio.create_task(self._pace(self._rate)))
        _, late = await asyncio.wait(tasks, timeout=self.seconds + grace)
        for task in late:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for error in found:
            if isinstance(error, Exception):
                raise error
        return self.counts

    def free(self, connection: "_Connection") -> None:
        """A connection has nothing to do: the next image, or none any more."""
        if perf_counter() >= self.end:
            connection.close()
        elif self._rate is None:
            connection.ask(self._next())
        else:
            self._idle.append(connection)

    def _next(self) -> bytes:
        self._sent += 1
        return self._requests[self._sent % len(self._requests)]

    async def _client(self, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        while perf_counter() < self.end:
            try:
                async with asyncio.timeout(CONNECT_S):
                    _, connection = await loop.create_connection(
                        lambda: _Connection(self), host, port
                    )
            except OSError:
                self.counts.refused += 1
                await asyncio.sleep(PAUSE_S)
                continue
            try:
                if not await connection.over:
                    await asyncio.sleep(PAUSE_S)
            finally:
                connection.abort()

    async def _pace(self, rate: float) -> None:
        begin, due = perf_counter(), 0
        while (now := perf_counter()) < self.end:
            while due < (now - begin) * rate:
                due += 1
                self._send_one()
            await asyncio.sleep(TICK_S)
        for connection in self._idle:
            connection.close()

    def _send_one(self) -> None:
        while self._idle:
            connection = self._idle.popleft()
            if not connection.over.done():
                connection.ask(self._next())
                return
        self.counts.unsent += 1


class _Connection(asyncio.Protocol):
    """One client's connection; it lives in callbacks, for a task's switch is dearer.

    Attributes:
        over: done when the connection has ended; False if that was amiss.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._answer: Answer | None = None
        self._began = 0.0
        self._transport: asyncio.Transport
        self.over: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._load.free(self)

    def ask(self, request: bytes) -> None:
        self._answer, self._began = Answer(), perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nothing was asked
            self.abort()
            return
        try:
            whole = self._answer.feed(data)
        except AnswerError:
            self._lose()
            self.abort()
            return
        if whole:
            closes = self._answer.closes
            self._count(self._answer.status)
            if closes:
                self.close()
            else:
                self._load.free(self)

    def connection_lost(self, _: Exception | None) -> None:
        if self._answer is not None:
            if self._answer.ended():
                self._count(self._answer.status)
            else:
                self._lose()
        if not self.over.done():
            self.over.set_result(True)

    def close(self) -> None:
        self._transport.close()

    def abort(self) -> None:
        """End at once; a request that was open stays unanswered."""
        if self._answer is not None:
            self._load.counts.unanswered += 1
            self._answer = None
        self._transport.abort()

    def _count(self, status: int) -> None:
        now, counts = perf_counter(), self._load.counts
        self._answer = None
        counts.statuses[status] += 1
        if status == OK:
            counts.latencies.append(now - self._began)
            counts.within += now <= self._load.end

    def _lose(self) -> None:
        self._answer = None
        self._load.counts.lost += 1
        if not self.over.done():
            self.over.set_result(False)


def as_requests(
    files: Sequence[bytes], *, host: str, path: str, key: str | None = None
) -> list[bytes]:
    """JPEG files as whole HTTP/1.1 requests, with an API key where one is given."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: image/jpeg"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    head = "\r\n".join([*lines, "Content-Length: "])
    return [f"{head}{len(file)}\r\n\r\n".encode() + file for file in files]


def _at(latencies: Sequence[float], share: float) -> float | None:
    """That quantile in milliseconds: the smallest value that so many do not pass."""
    if not latencies:
        return None
    return sorted(latencies)[max(math.ceil(share * len(latencies)) - 1, 0)] * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("images", type=Path, help="folder of .jpg files")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rate", type=float, help="images a second, whatever comes back")
    given = parser.parse_args()
    url = urlsplit(given.url)
    path = url.path + (f"?{url.query}" if url.query else "")
    files = [file.read_bytes() for file in sorted(given.images.glob("*.jpg"))]
    requests = as_requests(files, host=url.netloc, path=path, key=os.environ.get(KEY))
    load = Load(requests, clients=given.clients, seconds=given.seconds, rate=given.rate)
    counts = asyncio.run(load.drive(str(url.hostname), int(url.port or 80)))
    print(json.dumps(counts.summary(given.seconds)))  # noqa: T201


if __name__ == "__main__":
    main()
