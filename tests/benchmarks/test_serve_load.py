import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.serve import processes
from tests.benchmarks.serve.answers import Answer, AnswerError
from tests.benchmarks.serve.limit import Pace
from tests.benchmarks.serve.load import Counts, Load, as_requests
from tests.benchmarks.serve.processes import StartError, descendants, memory_of, running, wait_until
from tests.benchmarks.serve.windows import as_cell

REQUESTS = as_requests([b"one", b"three"], host="x", path="/predict")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def body_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))


def replying(*answers: bytes, delay: float = 0.001) -> Handler:
    """A server that keeps connections and gives these answers in turn, over all of them."""
    given = [0]

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await body_of(reader):
                await asyncio.sleep(delay)
                answer = answers[given[0] % len(answers)]
                given[0] += 1
                if not answer:
                    break
                writer.write(answer)
                await writer.drain()
                if b"close" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return handle


def answer(status: int = 200, body: bytes = b"{}", more: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n".encode()
    return head + more + b"\r\n" + body


def drive(
    handler: Handler,
    *,
    clients: int = 3,
    seconds: float = 0.2,
    rate: float | None = None,
    grace: float = 5,
) -> Counts:
    async def main() -> Counts:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            load = Load(REQUESTS, clients=clients, seconds=seconds, rate=rate)
            return await load.drive("127.0.0.1", port, grace=grace)

    return asyncio.run(main())


def test_every_answer_is_counted_with_its_latency() -> None:
    counts = drive(replying(answer(), delay=0.02))
    assert set(counts.statuses) == {200}
    assert len(counts.latencies) == counts.statuses[200] >= 3
    assert min(counts.latencies) >= 0.02
    assert counts.within <= counts.statuses[200]
    assert counts.errors == 0


def test_connections_are_kept_and_there_are_as_many_as_clients() -> None:
    seen = []
    handle = replying(answer())

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer)
        await handle(reader, writer)

    counts = drive(counted, clients=3)
    assert len(seen) == 3
    assert counts.statuses[200] > 3


def test_other_answers_are_errors_by_their_status_and_have_no_latency() -> None:
    counts = drive(replying(answer(), answer(429), answer(503)))
    assert set(counts.statuses) == {200, 429, 503}
    assert counts.errors == counts.statuses[429] + counts.statuses[503] > 0
    assert len(counts.latencies) == counts.statuses[200]


def test_a_connection_lost_before_its_answer_is_counted_and_made_again() -> None:
    counts = drive(replying(answer(), b""), clients=1)
    assert counts.lost >= 1
    assert counts.statuses[200] >= 2
    assert counts.errors == counts.lost


def test_a_connection_that_the_server_closes_after_an_answer_is_no_error() -> None:
    counts = drive(replying(answer(more=b"Connection: close\r\n")), clients=2)
    assert counts.errors == 0
    assert counts.statuses[200] > 2


def test_an_answer_that_never_comes_ends_at_the_deadline() -> None:
    begin = time.monotonic()
    counts = drive(replying(answer(), delay=3600), clients=2, grace=0.1)
    assert time.monotonic() - begin < 30
    assert counts.unanswered == counts.errors == 2
    assert counts.latencies == []


def test_a_server_that_is_not_there_is_refused_connections() -> None:
    async def main() -> Counts:
        server = await asyncio.start_server(replying(answer()), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await Load(REQUESTS, clients=2, seconds=0.1).drive("127.0.0.1", port)

    counts = asyncio.run(main())
    assert counts.refused == counts.errors >= 2


def test_an_open_loop_keeps_its_pace_whatever_comes_back() -> None:
    counts = drive(replying(answer()), clients=20, seconds=0.5, rate=100)
    sent = counts.statuses[200] + counts.unsent
    assert 35 <= sent <= 51
    assert counts.errors == 0


def test_an_open_loop_counts_what_it_had_no_connection_for() -> None:
    counts = drive(replying(answer(), delay=0.2), clients=2, seconds=0.3, rate=200)
    assert counts.unsent > counts.statuses[200] > 0


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_answers_are_read_however_their_bytes_arrive(step: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked = head + b"4\r\n\r\n\r\n\r\n2;x=y\r\nab\r\n0\r\n\r\n"
    early = b"HTTP/1.1 100 Continue\r\n\r\n" + answer(404, b"gone")
    for data, status in ((chunked, 200), (early, 404), (answer(204, b""), 204)):
        found = Answer()
        ends = [found.feed(data[i : i + step]) for i in range(0, len(data), step)]
        assert ends == [False] * (len(ends) - 1) + [True]
        assert found.status == status


def test_without_a_length_an_answer_ends_with_its_connection() -> None:
    found = Answer()
    assert not found.feed(b"HTTP/1.0 200 OK\r\n\r\nsome")
    assert found.ended()
    assert found.closes


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"x" * 100_000,
    ],
)
def test_what_is_no_answer_is_told(data: bytes) -> None:
    with pytest.raises(AnswerError, match=r"no HTTP|length|chunk|without an end"):
        Answer().feed(data)


def test_what_is_no_answer_counts_as_a_lost_connection() -> None:
    counts = drive(replying(b"nonsense\r\n\r\n"), clients=1, seconds=0.1)
    assert counts.lost >= 1
    assert not counts.statuses


def test_a_summary_gives_rates_and_quantiles() -> None:
    counts = Counts(latencies=[n / 1000 for n in range(1, 101)], within=80)
    counts.statuses.update({200: 100, 429: 5})
    found = counts.summary(2)
    assert found["images_s"] == 40
    assert (found["p50_ms"], found["p99_ms"], found["max_ms"]) == pytest.approx((50, 99, 100))
    assert found["errors"] == 5
    assert Counts().summary(1)["p99_ms"] is None


def test_a_server_is_set_against_the_limit_right_before_and_after() -> None:
    found: list[dict[str, Any]] = [
        {"images_s": 80, "p50_ms": 12.0, "p99_ms": 20.0, "errors": 1},
        {"images_s": 40, "p50_ms": 22.0, "p99_ms": 40.0, "errors": 0},
        {"images_s": 10, "p50_ms": None, "p99_ms": None, "errors": 2},
    ]
    paces = [Pace(120, 9), Pace(80, 11), Pace(20, 31), Pace(20, 31)]
    cell = as_cell(8, found[:2], paces[:3])
    assert cell.fraction == pytest.approx((80 / 100 + 40 / 50) / 2)
    assert cell.over_ms == pytest.approx((2 + 1) / 2)
    assert cell.errors == 1
    assert as_cell(8, found, paces).fraction == pytest.approx(0.8)


PARENT = """
import subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
subprocess.Popen([sys.executable, "-c", child + "; time.sleep(600)"])
time.sleep(600)
"""


def test_nothing_that_a_process_started_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LEAVE_S", 0.1)  # this child will not be told
    log = tmp_path / "log"
    with running([sys.executable, "-c", PARENT], log=log) as process:
        wait_until(lambda: "1" in log.read_text(), process, log=log, timeout_s=60)
        (child,) = descendants(process.pid)
        memory = memory_of(process.pid)
        assert memory.peak >= memory.now > memory_of(child).now > 0
    assert process.returncode is not None
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX"


def test_a_server_that_ends_early_says_why(tmp_path: Path) -> None:
    log = tmp_path / "log"
    words = [sys.executable, "-c", "raise SystemExit('no such port')"]
    with (
        running(words, log=log, stdout=subprocess.DEVNULL) as process,
        pytest.raises(StartError, match=r"ended with 1[\s\S]*no such port"),
    ):
        wait_until(lambda: False, process, log=log, timeout_s=60)
