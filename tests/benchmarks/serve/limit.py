"""The limit: decode and members in one process, one-thread sessions, no HTTP.

`python -m tests.benchmarks.serve.limit BUNDLE IMAGES` answers each line `THREADS SECONDS` on
stdin with one JSON object; in between it waits, and takes nothing from whoever is measured then.
"""

import argparse
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple, Self

from ensemble.bundle import load_bundle
from ensemble.runtime import Engine, Runtime
from search.data.transforms import decode
from tests.benchmarks.serve.processes import StartError, running, tail


class Pace(NamedTuple):
    """What one window of the limit came to."""

    images_s: float
    p50_ms: float


class Limit:
    """The limit in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.pid = process.pid
        self._process, self._log = process, log

    def window(self, threads: int, seconds: float) -> Pace:
        """Score images on so many threads for some seconds.

        Raises:
            StartError: the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{threads} {seconds}\n")
            self._process.stdin.flush()
            return Pace(**json.loads(self._process.stdout.readline()))
        except (OSError, ValueError) as error:
            raise StartError(f"the limit has ended; it said:\n{tail(self._log)}") from error

    @classmethod
    @contextmanager
    def beside(
        cls, bundle: Path, images: Path, *, log: Path, engine: Engine = "onnx"
    ) -> Iterator[Self]:
        """The limit for the length of the block, loaded and warm."""
        module = [sys.executable, "-m", "tests.benchmarks.serve.limit", str(bundle), str(images)]
        pipe = subprocess.PIPE
        with running([*module, "--engine", engine], log=log, stdin=pipe, stdout=pipe) as process:
            limit = cls(process, log)
            limit.window(1, 0.5)
            yield limit


def measure(
    runtime: Runtime, files: Sequence[bytes], *, threads: int, seconds: float
) -> dict[str, float]:
    """Decode and score files on so many threads until the time is over."""
    begin = perf_counter()
    lock, turn, took = threading.Lock(), iter(range(10**9)), list[float]()

    def work() -> None:
        while (start := perf_counter()) < begin + seconds:
            with lock:
                file = files[next(turn) % len(files)]
            runtime.predict([decode(file)])
            took.append(perf_counter() - start)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()
    return {"images_s": len(took) / (perf_counter() - begin), "p50_ms": median(took) * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--engine", default="onnx")
    given = parser.parse_args()
    runtime = Runtime(load_bundle(given.bundle), engine=given.engine)
    files = [file.read_bytes() for file in sorted(given.images.glob("*.jpg"))]
    for line in sys.stdin:
        threads, seconds = line.split()
        found = measure(runtime, files, threads=int(threads), seconds=float(seconds))
        print(json.dumps(found), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
