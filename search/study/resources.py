"""How many trials a Ray cluster takes at once, and what it is asked to grow to."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources

from search.config import ResourcesConfig
from search.errors import StudyError

REFRESH = 10.0  # seconds between looks at the cluster, which may grow and shrink
GROWN_WITHIN = 900.0  # seconds in which a cluster that grows has its first node
CALLER_MEMORY = 2.0**28  # bytes
MOST = 10_000  # more trials at once than any cluster takes


class Slots:
    """Places for trials, by what each node has."""

    def __init__(
        self,
        resources: ResourcesConfig,
        *,
        say: Callable[[str], None] = lambda _: None,
        within: float = GROWN_WITHIN,
    ) -> None:
        """Look at the cluster; ask it to grow, and wait for the first place, if it is to.

        Args:
            say: hears that it waits.
            within: seconds that it waits at the most.

        Raises:
            StudyError: not even one trial fits.
        """
        self._resources = resources
        if resources.grow is not None:
            _ask_for(resources, resources.grow)
        self._seen, self._count = time.monotonic(), self._look()
        with ExitStack() as unfit:
            unfit.callback(self.close)
            if self._count < 1 and resources.grow is not None:
                say("the cluster has no place for a trial yet; it was asked to grow")
                self._wait(within)
            if self._count < 1:
                raise StudyError(self._lacking())
            unfit.pop_all()

    def close(self) -> None:
        """Take back what the cluster was asked to grow to: idle nodes may go."""
        if self._resources.grow is not None and ray.is_initialized():
            request_resources(bundles=[])

    @property
    def bundle(self) -> dict[str, float]:
        """What is reserved for a trial's process; of several workers, for the one that calls them.

        It must not be nothing, and takes memory: the workers hold the CPUs and GPUs.
        """
        if self._resources.workers > 1:
            return {"memory": CALLER_MEMORY}
        return {"cpu": self._resources.cpu, "gpu": self._resources.gpu}

    def count(self) -> int:
        """Trials that fit at once now."""
        if time.monotonic() - self._seen > REFRESH:
            self._seen, self._count = time.monotonic(), self._look()
        return self._count

    def cpus_here(self) -> int:
        """CPUs of the driver's own node; 0 where no trial fits on it."""
        here = ray.get_runtime_context().get_node_id()
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        have: dict[str, float] = next(n["Resources"] for n in nodes if n["NodeID"] == here)
        return math.floor(have.get("CPU", 0)) if self._fit(have) else 0

    def _wait(self, within: float) -> None:
        end = time.monotonic() + within
        while self._count < 1 and time.monotonic() < end:
            time.sleep(1)
            self._seen, self._count = time.monotonic(), self._look()

    def _lacking(self) -> str:
        resources = self._resources
        have = ray.cluster_resources()  # type: ignore[no-untyped-call]
        what = f"{resources.cpu} CPUs and {resources.gpu:g} GPUs"
        workers = f" in each of {resources.workers} workers" if resources.workers > 1 else ""
        mend = "lower resources in the config"
        if resources.grow is None:
            mend += ", or set resources.grow where the cluster starts nodes by itself"
        return (
            f"a trial needs {what} on one node{workers}, Ray has {have.get('CPU', 0):g} CPUs "
            f"and {have.get('GPU', 0):g} GPUs in all; {mend}"
        )

    def _look(self) -> int:
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        workers = sum(self._fit(node["Resources"]) for node in nodes if node["Alive"])
        return workers // self._resources.workers

    def _fit(self, have: dict[str, float]) -> int:
        cpus = math.floor(have.get("CPU", 0) / self._resources.cpu)
        if not self._resources.gpu:
            return cpus
        # A trial's share of a GPU lies on one GPU: 0.4 fits twice on each.
        each = math.floor(1 / self._resources.gpu + 1e-9)
        return min(cpus, math.floor(have.get("GPU", 0)) * each)


def _ask_for(resources: ResourcesConfig, trials: int) -> None:
    """Tell the cluster's autoscaler what so many trials at once need."""
    each = {"CPU": float(resources.cpu), "GPU": float(resources.gpu)}
    needed = {name: amount for name, amount in each.items() if amount}
    request_resources(bundles=[needed] * (trials * resources.workers))
