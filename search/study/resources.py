"""How many trials a Ray cluster takes at once."""

import math
import time
from typing import Any

import ray

from search.config import ResourcesConfig
from search.errors import StudyError

REFRESH = 10.0  # seconds between looks at the cluster, which may grow and shrink
CALLER_MEMORY = 2.0**28  # bytes
MOST = 10_000  # more trials at once than any cluster takes


class Slots:
    """Places for trials, by what each node has."""

    def __init__(self, resources: ResourcesConfig) -> None:
        """Look at the cluster.

        Raises:
            StudyError: not even one trial fits.
        """
        self._resources = resources
        self._seen, self._count = time.monotonic(), self._look()
        if self._count < 1:
            have = ray.cluster_resources()  # type: ignore[no-untyped-call]
            what = f"{resources.cpu} CPUs and {resources.gpu:g} GPUs"
            workers = f" in each of {resources.workers} workers" if resources.workers > 1 else ""
            raise StudyError(
                f"a trial needs {what} on one node{workers}, Ray has {have.get('CPU', 0):g} CPUs "
                f"and {have.get('GPU', 0):g} GPUs in all; lower resources in the config"
            )

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
