"""Processes that a benchmark starts: ready when used, ended by their ids whatever happens."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx

ROOT = Path(__file__).parents[3]
REQUIREMENTS = Path(__file__).with_name("peers.txt")
STOP_S = 45.0  # Ray takes its time
LEAVE_S = 5.0  # what a server tells to end may need a moment
# Each server decides on its own threads, and none finds another Ray than the one it starts.
LEFT_OUT = ("RAY_ADDRESS", "OMP_NUM_THREADS")


class StartError(Exception):
    """A server that did not get ready; with the end of what it said."""


class Memory(NamedTuple):
    """Of a process and all below it, in MB; pages that several share count for each."""

    now: float
    peak: float


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
) -> Iterator["subprocess.Popen[str]"]:
    """A process for the length of the block; afterwards it and all it started are gone.

    Args:
        log: receives what it prints; of stdout only where no other place is given.
        env: added to this process's surroundings.
    """
    surroundings = {k: v for k, v in os.environ.items() if k not in LEFT_OUT} | dict(env or {})
    with log.open("a", encoding="utf-8") as said:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=surroundings,
            cwd=ROOT,
            stdin=stdin,
            stdout=said if stdout is None else stdout,
            stderr=said,
            text=True,
            start_new_session=True,  # Ctrl-C is for the benchmark, which then ends this one
        )
    try:
        yield process
    finally:
        _end(process)


def wait_until(
    ready: Callable[[], bool], process: "subprocess.Popen[str]", *, log: Path, timeout_s: float
) -> float:
    """Seconds until it was ready.

    Raises:
        StartError: it ended, or took longer.
    """
    begin = time.monotonic()
    while time.monotonic() - begin < timeout_s:
        if ready():
            return time.monotonic() - begin
        if process.poll() is not None:
            break
        time.sleep(0.05)
    code = process.poll()
    what = f"not ready within {timeout_s:g} s" if code is None else f"ended with {code}"
    raise StartError(f"{what}; {log} ends with:\n{tail(log)}")


def answers(url: str, file: bytes, *, key: str | None = None) -> bool:
    """Whether an image is answered well."""
    try:
        headers = {"content-type": "image/jpeg"} | ({} if key is None else {"x-api-key": key})
        return httpx.post(url, content=file, headers=headers, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def memory_of(pid: int) -> Memory:
    """Resident memory of a process and its descendants, now and at most."""
    fields = [_status(each) for each in [pid, *descendants(pid)]]
    return Memory(*(sum(f.get(name, 0) for f in fields) / 1024 for name in ("VmRSS", "VmHWM")))


def descendants(pid: int) -> list[int]:
    """Ids of all processes below one, from /proc."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                parent = int(_stat(int(folder.name))[1])
                children.setdefault(parent, []).append(int(folder.name))
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def peers_python(folder: Path = ROOT / ".venv-peers") -> Path:
    """The Python of the other servers' environment, which is made on the first call."""
    python, stamp = folder / "bin" / "python", folder / "installed"
    if stamp.is_file() and stamp.stat().st_mtime >= REQUIREMENTS.stat().st_mtime:
        return python
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, stdout=sys.stderr)
    install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "-r", REQUIREMENTS]
    subprocess.run(install, check=True, stdout=sys.stderr)
    stamp.touch()
    return python


def tail(log: Path, lines: int = 15) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def _end(process: "subprocess.Popen[str]") -> None:
    """Ask it to end, and kill what is left of it and of all it had started."""
    below = {pid: _started(pid) for pid in descendants(process.pid)}
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        below |= {pid: _started(pid) for pid in descendants(process.pid)}
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    _wait_for(below, LEAVE_S)
    for pid, started in below.items():
        if _is_same(pid, started):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    _wait_for(below, STOP_S)


def _wait_for(processes: Mapping[int, str | None], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(_is_same(*each) for each in processes.items()):
        time.sleep(0.05)


def _is_same(pid: int, started: str | None) -> bool:
    """Whether that process still lives: an id may have gone to another one since."""
    return started is not None and _started(pid) == started


def _started(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; None where it is gone or a zombie."""
    try:
        fields = _stat(pid)
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: state, parent, …; the start is the 20th."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def _status(pid: int) -> dict[str, int]:
    """The kilobytes of /proc/PID/status by name; empty where the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) for name, value in pairs}
