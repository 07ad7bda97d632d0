"""The servers that are set side by side, each started the same way."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.serve.processes import (
    answers,
    free_port,
    memory_of,
    peers_python,
    running,
    wait_until,
)

PACKAGE = "tests.benchmarks.serve"
HAPROXY = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED")
ROWS = ("haproxy", "proxy", "plain", "litserve", "bentoml")
OURS = ("haproxy", "proxy")
START_S = 180


@dataclass(frozen=True)
class Contender:
    """How one server is started.

    Attributes:
        row: of the tables; several contenders of one row are tried, and the fastest measured.
        settings: in words.
        command: `{port}` in it becomes the port.
        tells: it prints a JSON object when it is ready.
        key: that it asks for.
    """

    row: str
    settings: str
    command: Sequence[str]
    env: dict[str, str] = field(default_factory=dict)
    path: str = "/predict"
    tells: bool = False
    key: str | None = None


@dataclass(frozen=True)
class Server:
    """A contender at work."""

    url: str  # that images are sent to
    root: str
    pid: int
    ready_s: float | None = None  # on a Ray that ran already
    key: str | None = None

    @property
    def peak_mb(self) -> float:
        return memory_of(self.pid).peak


@contextmanager
def serving(contender: Contender, images: Path, *, log: Path) -> Iterator[Server]:
    """A contender for the length of the block; it has answered an image.

    Raises:
        StartError: it does not get ready.
    """
    port = free_port()
    command = [word.format(port=port) for word in contender.command]
    root = f"http://127.0.0.1:{port}"
    url, file = root + contender.path, next(iter(sorted(images.glob("*.jpg")))).read_bytes()
    stdout = subprocess.PIPE if contender.tells else None
    with running(command, log=log, env=contender.env, stdout=stdout) as process:

        def ready() -> bool:
            return answers(url, file, key=contender.key)

        wait_until(ready, process, log=log, timeout_s=START_S)
        ready_s = None
        if process.stdout is not None:
            ready_s = json.loads(process.stdout.readline())["ready_s"]
        yield Server(url, root, process.pid, ready_s, contender.key)


def ours(row: str, bundle: Path, *options: str) -> Contender:
    """The service behind HAProxy or behind Serve's default proxy."""
    on = "1" if row == "haproxy" else "0"
    return Contender(
        row,
        "Ray Serve, " + ("HAProxy, throughput-optimised" if on == "1" else "default proxy"),
        _python(sys.executable, "ours", str(bundle), *options),
        env=dict.fromkeys(HAPROXY, on),
        path="/v1/predict",
        tells=True,
    )


def contenders(row: str, bundle: Path) -> list[Contender]:
    """All ways to start the server of one row."""
    members = str(bundle / "members")
    if row in OURS:
        return [ours(row, bundle, "--waiting", "512")]
    if row == "plain":
        plain = _python(sys.executable, "peers.plain", str(bundle))
        return [Contender(row, "FastAPI, torch eager, one request at a time", plain)]
    python = peers_python()
    if row == "litserve":
        return [
            Contender(
                row,
                f"LitServe, 2 workers, {'batches of 8' if batch > 1 else 'no batches'}",
                [*_python(str(python), "peers.lit", members), "--batch", str(batch)],
            )
            for batch in (1, 8)
        ]
    bentoml = [str(python.with_name("bentoml")), "serve"]
    address = ["--host", "127.0.0.1", "--port", "{port}"]
    return [
        Contender(
            row,
            f"BentoML, 2 workers, {how}",
            [*bentoml, f"{PACKAGE}.peers.bento:{name}", *address],
            env={"BENCH_MEMBERS": members, "BENTOML_DO_NOT_TRACK": "1"},
        )
        for name, how in (("Single", "no batches"), ("Batched", "adaptive batches up to 8"))
    ]


def _python(python: str, module: str, *words: str) -> list[str]:
    return [python, "-m", f"{PACKAGE}.{module}", *words, "--port", "{port}"]
