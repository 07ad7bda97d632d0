"""A Ray head of a test's own, as an operator starts it, and the command that talks to it."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

TOKEN = "0123456789abcdef" * 4
PATIENCE = 180.0  # seconds for a head to start
# Those that Ray does not choose itself; below the ports that connections take, for a busy machine
# is slow to bind them.
PORTS = ("--port", "--dashboard-port", "--ray-client-server-port", "--dashboard-agent-listen-port")
BETWEEN = (21_000, 31_000)


@dataclass(frozen=True)
class Head:
    """A head with token authentication."""

    address: str

    def consilium(
        self, *words: str | Path, token: str | None = TOKEN, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        """The command, in a process of its own."""
        command = [sys.executable, "-m", "cluster", *map(str, words), "--address", self.address]
        return subprocess.run(
            command,
            check=False,
            env=_environment(token) | variables,
            capture_output=True,
            text=True,
            timeout=400,
        )

    def get(self, path: str) -> Any:
        """What the dashboard says to whoever has the token."""
        answer = httpx.get(self.address + path, headers={"Authorization": f"Bearer {TOKEN}"})
        return answer.raise_for_status().json()


@contextmanager
def started_head() -> Iterator[Head]:
    """`ray start --head` on loopback with two CPUs, in a folder of its own."""
    folder = tempfile.mkdtemp(prefix="ray")  # short: Unix sockets bear 107 characters
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    words = [word for name, port in ports.items() for word in (name, str(port))]
    ray = Path(sys.executable).with_name("ray")
    command = [str(ray), "start", "--head", "--block", "--temp-dir", folder, "--num-cpus", "2"]
    hosts = ["--dashboard-host", "127.0.0.1", "--node-ip-address", "127.0.0.1"]
    with Path(folder, "head.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *hosts, *words, "--disable-usage-stats"],
            env=_environment(TOKEN),
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        head = Head(f"http://127.0.0.1:{ports['--dashboard-port']}")
        _await(head, process, Path(folder, "head.log"))
        yield head
    finally:
        if process.poll() is not None:
            print(Path(folder, "head.log").read_text())  # noqa: T201
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.sample(range(*BETWEEN), 200):
        with closing(socket.socket()) as tried:
            if len(found) < count and tried.connect_ex(("127.0.0.1", port)):
                found.append(port)
    return found


def _await(head: Head, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            head.get("/api/jobs/")
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"the head does not answer: {log.read_text()}")


def _environment(token: str | None) -> dict[str, str]:
    """This process's, with this Python's programs first, and one thread for each trial."""
    without = {"RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    known = {name: value for name, value in os.environ.items() if name not in without}
    path = f"{Path(sys.executable).parent}{os.pathsep}{known.get('PATH', '')}"
    mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {}
    return {**known, "PATH": path, "OMP_NUM_THREADS": "1", **mode}
