"""The service under strain: four times too many images, and a bundle swapped under load."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx

from tests.benchmarks.serve.contenders import Server
from tests.benchmarks.serve.processes import memory_of
from tests.benchmarks.serve.windows import send

TOO_MANY = 4  # times what the service can do
CONNECTIONS = 512
BUSY = "429"
SWAPS = 4
SWAP_CLIENTS = 8


def overload(server: Server, images: Path, *, capacity: float, seconds: float) -> dict[str, Any]:
    """Send four times the capacity, whatever comes back, and watch the memory.

    Args:
        capacity: images a second that the service answers at most.

    Returns:
        errors: answers other than 200 and 429, and connections lost, refused or never answered.
        growth_mb: of the memory's mean, from the second quarter of the time to the last.
        unsent: images for which no connection was free: less load than was meant.
    """
    rate = TOO_MANY * capacity
    with _Watch(server.pid) as memory:
        found = send(server.url, images, clients=CONNECTIONS, seconds=seconds, rate=rate)
    statuses = found["statuses"]
    other = sum(n for status, n in statuses.items() if status not in ("200", BUSY))
    quarter = max(len(memory.megabytes) // 4, 1)
    return {
        "seconds": seconds,
        "sent_s": rate,
        "accepted_s": found["images_s"],
        "accepted_p50_ms": found["p50_ms"],
        "accepted_p99_ms": found["p99_ms"],
        "busy": statuses.get(BUSY, 0),
        "errors": other + found["lost"] + found["refused"] + found["unanswered"],
        "unsent": found["unsent"],
        "memory_mb": memory.megabytes[-1],
        "growth_mb": fmean(memory.megabytes[-quarter:])
        - fmean(memory.megabytes[quarter : 2 * quarter] or memory.megabytes),
    }


def swap_under_load(
    server: Server, images: Path, bundles: tuple[Path, Path], *, seconds: float
) -> dict[str, Any]:
    """Swap from the first bundle to the second and back, several times, while images come.

    Returns:
        failed: requests without an answer of status 200; swap_s: of each change.

    Raises:
        httpx.HTTPError: a swap was refused.
    """
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(
            lambda: send(server.url, images, clients=SWAP_CLIENTS, seconds=seconds, key=server.key)
        )
        took = []
        for turn in range(SWAPS):
            time.sleep(seconds / (SWAPS + 2))
            took.append(_swap(server, bundles[(turn + 1) % 2]))
        found = load.result()
    answered = sum(found["statuses"].values())
    return {"swaps": SWAPS, "swap_s": took, "requests": answered, "failed": found["errors"]}


def _swap(server: Server, bundle: Path) -> float:
    """Have another bundle serve; seconds until it does."""
    rollout = {"bundles": {bundle.name: {"path": str(bundle)}}, "serving": bundle.name}
    begin = time.perf_counter()
    headers = {"x-api-key": server.key or ""}
    with httpx.Client(trust_env=False, timeout=60, headers=headers) as client:
        client.put(f"{server.root}/v1/admin/rollout", json=rollout).raise_for_status()
    return time.perf_counter() - begin


class _Watch:
    """Memory of a process and all below it, once a second, for the length of a block."""

    def __init__(self, pid: int) -> None:
        self.megabytes = [memory_of(pid).now]
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(1):
            self.megabytes.append(memory_of(self._pid).now)
