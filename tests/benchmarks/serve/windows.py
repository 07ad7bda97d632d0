"""Short windows of a server between windows of the limit: both see the machine as fast as it is.

A shared machine's speed drifts by a third within minutes, so images a second mean little alone;
what is reported beside them is their share of the limit's right before and after.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.serve.limit import Limit, Pace
from tests.benchmarks.serve.load import KEY
from tests.benchmarks.serve.processes import LEFT_OUT, ROOT

CORES = os.cpu_count() or 1
GRACE_S = 90  # a load generator that takes longer than its window by this has gone wrong


@dataclass(frozen=True)
class Cell:
    """One server at one number of clients: medians over the windows.

    Attributes:
        fraction: of the limit's images a second, on as many threads as clients, at most the cores.
        over_ms: p50 above the limit's own; it means something at one client.
        errors: summed.
    """

    clients: int
    images_s: float
    fraction: float
    p50_ms: float
    p99_ms: float
    over_ms: float
    errors: int
    limit_s: float


def send(
    url: str,
    images: Path,
    *,
    clients: int,
    seconds: float,
    rate: float | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """One window of load, from a process of its own; see load.Counts.summary.

    Raises:
        subprocess.SubprocessError: it failed, or did not end.
    """
    module = [sys.executable, "-m", "tests.benchmarks.serve.load", url, str(images)]
    options = ["--clients", str(clients), "--seconds", str(seconds)]
    pace = [] if rate is None else ["--rate", str(rate)]
    surroundings = {k: v for k, v in os.environ.items() if k not in LEFT_OUT}
    surroundings |= {} if key is None else {KEY: key}
    done = subprocess.run(
        [*module, *options, *pace],
        env=surroundings,
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        timeout=seconds + GRACE_S,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(
    url: str, images: Path, limit: Limit, *, clients: int, seconds: float, repeats: int
) -> Cell:
    """Alternate windows of the limit and of the server, and end with the limit's."""
    threads = min(clients, CORES)
    paces, found = [limit.window(threads, seconds / 2)], []
    for _ in range(repeats):
        found.append(send(url, images, clients=clients, seconds=seconds))
        paces.append(limit.window(threads, seconds / 2))
    return as_cell(clients, found, paces)


def as_cell(clients: int, found: Sequence[dict[str, Any]], paces: Sequence[Pace]) -> Cell:
    """Medians of n windows between n + 1 windows of the limit."""
    beside = list(_between(paces))
    return Cell(
        clients=clients,
        images_s=median(one["images_s"] for one in found),
        fraction=median(
            one["images_s"] / pace.images_s for one, pace in zip(found, beside, strict=True)
        ),
        p50_ms=median(_number(one["p50_ms"]) for one in found),
        p99_ms=median(_number(one["p99_ms"]) for one in found),
        over_ms=median(
            _number(one["p50_ms"]) - pace.p50_ms for one, pace in zip(found, beside, strict=True)
        ),
        errors=sum(one["errors"] for one in found),
        limit_s=median(pace.images_s for pace in paces),
    )


def _between(paces: Sequence[Pace]) -> Iterator[Pace]:
    """What the limit would have come to in between: means of neighbours."""
    for before, after in pairwise(paces):
        yield Pace(*((a + b) / 2 for a, b in zip(before, after, strict=True)))


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
