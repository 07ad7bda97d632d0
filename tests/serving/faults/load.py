"""Clients that ask on and on while something goes wrong, and what each request came to."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import urlsplit

CUT = 0  # as a status: the connection ended before the answer
CLIENT_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Asked:
    """One request: when it was sent and answered (monotonic seconds), and how."""

    sent: float
    answered: float
    status: int
    digest: str | None
    code: str


@dataclass
class Load:
    """A closed loop of clients: each sends its next image when its last is answered."""

    url: str
    files: Sequence[bytes]
    path: str = "/v1/predict"
    key: str | None = None
    pause_s: float = 0.0
    asked: list[Asked] = field(default_factory=list)

    @contextmanager
    def going(self, *, clients: int) -> Iterator["Load"]:
        """The clients ask for the length of the block; all have ended after it."""
        over = threading.Event()
        threads = [
            threading.Thread(target=self._ask_on, args=(over, number)) for number in range(clients)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            over.set()
            for thread in threads:
                thread.join(CLIENT_TIMEOUT_S + 5)
        assert not any(thread.is_alive() for thread in threads)

    def wait_for(self, count: int, *, seconds: float = 60) -> None:
        """Go on once so many more requests were answered 200."""
        before, deadline = self.good(), time.monotonic() + seconds
        while self.good() < before + count:
            assert time.monotonic() < deadline, f"too few answers: {self.statuses()}"
            time.sleep(0.02)

    def good(self) -> int:
        """Requests answered 200."""
        return sum(one.status == 200 for one in list(self.asked))

    def statuses(self, since: float = 0.0) -> Counter[tuple[int, str]]:
        """Requests sent from then on, by status and problem code."""
        return Counter((one.status, one.code) for one in list(self.asked) if one.sent >= since)

    def bad(self) -> list[Asked]:
        """Requests that were not answered 200."""
        return [one for one in list(self.asked) if one.status != 200]

    def digests(self, since: float = 0.0) -> Counter[str | None]:
        """Requests sent from then on and answered 200, by who answered."""
        asked = [one for one in list(self.asked) if one.sent >= since and one.status == 200]
        return Counter(one.digest for one in asked)

    def gap(self, since: float) -> float:
        """The longest time without one answer of 200, from then on, in seconds."""
        times = sorted(one.answered for one in list(self.asked) if one.status == 200)
        times = [since, *(moment for moment in times if moment >= since)]
        return max((b - a for a, b in pairwise(times)), default=float("inf"))

    def _ask_on(self, over: threading.Event, number: int) -> None:
        host = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            str(host.hostname), host.port, timeout=CLIENT_TIMEOUT_S
        )
        while not over.is_set():
            number += 1
            self.asked.append(self._ask(connection, self.files[number % len(self.files)]))
            over.wait(self.pause_s)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, file: bytes) -> Asked:
        headers = {"content-type": "image/png"}
        if self.key is not None:
            headers["authorization"] = f"Bearer {self.key}"
        sent = time.monotonic()
        try:
            connection.request("POST", self.path, file, headers)
            answer = connection.getresponse()
            status, content = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            time.sleep(0.05)
            return Asked(sent, time.monotonic(), CUT, None, type(error).__name__)
        digest, code = _read(status, content)
        return Asked(sent, time.monotonic(), status, digest, code)


def _read(status: int, content: bytes) -> tuple[str | None, str]:
    try:
        answer = json.loads(content)
    except ValueError:  # Ray Serve itself
        return None, content.decode(errors="replace")[:60]
    if status == 200:
        return answer["bundle"]["digest"], ""
    return None, answer["code"]
