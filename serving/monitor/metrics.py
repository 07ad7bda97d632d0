"""What a replica counts of its own domain, for Prometheus.

A request only adds to plain Python numbers; every few seconds `flush` hands what is new to Ray,
whose agent on each node serves it, with `ray_` before each name. `text` is one replica's own.
"""

import logging
import sys
from collections.abc import Mapping
from threading import Lock
from typing import Any, Protocol

from serving.monitor.families import Count, Family, Labels, Level, Spread

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PROBABILITIES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
DIFFERENCES = (0.0001, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

logger = logging.getLogger(__name__)


class Export(Protocol):
    """Where the numbers go."""

    def ready(self) -> bool:
        """Whether they can go there now."""

    def count(self, family: Count, labels: Labels, by: float) -> None: ...

    def level(self, family: Level, labels: Labels, value: float) -> None: ...

    def spread(self, family: Spread, value: float, times: int) -> None: ...


class Metrics:
    """The numbers of one replica. Safe to call from several threads."""

    def __init__(self, export: Export | None = None) -> None:
        """Count from nothing.

        Args:
            export: Ray's metrics where none is given.
        """
        self._export = RayExport() if export is None else export
        self._lock = Lock()
        self._decisions = Count(
            "consilium_decisions_total",
            "Decisions on images.",
            ("bundle", "operating_point", "decision"),
        )
        self._classes = Count(
            "consilium_classes_total", "Images by most probable class.", ("bundle", "class")
        )
        self._novel = Count(
            "consilium_novel_total", "Images unlike the training images.", ("bundle",)
        )
        self._probability = Spread(
            "consilium_probability", "Probability of the positive class.", PROBABILITIES
        )
        self._asked = Count(
            "consilium_members_asked_total", "Images by members that answered.", ("bundle", "asked")
        )
        self._requests = Count(
            "consilium_requests_total", "Requests answered.", ("route", "status")
        )
        self._seconds = Spread(
            "consilium_request_seconds", "From a request to its answer.", SECONDS
        )
        self._refusals = Count("consilium_refusals_total", "Problems answered, by code.", ("code",))
        self._comparisons = Count(
            "consilium_comparisons_total",
            "Images that a canary or shadow decided, too.",
            ("role", "agree"),
        )
        self._difference = Spread(
            "consilium_comparison_difference",
            "Largest difference of a probability from the serving bundle's.",
            DIFFERENCES,
        )
        self._drift = Level("consilium_drift_psi", "Population stability index.", ("statistic",))
        self._degraded = Level("consilium_degraded_members", "Members that failed.")
        self._waiting = Level("consilium_waiting_images", "Images that wait or are scored.")
        self._versions = Level("consilium_version", "1 for each bundle's role.", ("bundle", "role"))

    def predicted(
        self,
        bundle: str,
        point: str | None,
        decision: str | None,
        probability: float | None,
        top: str,
        novel: bool | None,
        asked: int,
    ) -> None:
        """One image was scored.

        Args:
            bundle: its name in the rollout.
            point: the operating point's name.
            decision: None where the bundle makes none.
            probability: of the positive class, in [0, 1]; None where there is none.
            top: the most probable class.
            novel: None where the bundle cannot tell.
            asked: members that answered.
        """
        with self._lock:
            self._classes.add(bundle, top)
            self._asked.add(bundle, str(asked))
            if decision is not None:
                self._decisions.add(bundle, point or "none", decision)
            if novel:
                self._novel.add(bundle)
            if probability is not None:
                self._probability.observe(probability)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            route: the template, never the path that was asked for: anyone may ask for any.
        """
        with self._lock:
            self._requests.add(route, str(status))
            self._seconds.observe(seconds)

    def refused(self, code: str) -> None:
        """A problem was answered; the code is the stable one of RFC 9457's extension."""
        with self._lock:
            self._refusals.add(code)

    def compared(self, role: str, agree: bool, difference: float) -> None:
        """A canary or shadow scored an image that the serving bundle scored, too.

        Args:
            agree: they decide the same.
            difference: the largest of any probability, in [0, 1].
        """
        with self._lock:
            self._comparisons.add(role, "true" if agree else "false")
            self._difference.observe(difference)

    def set_drift(self, values: Mapping[str, float]) -> None:
        """Drift by statistic; what is not finite is left as it was."""
        with self._lock:
            for statistic, value in values.items():
                self._drift.put(statistic, value=value)

    def set_state(self, *, degraded: int, waiting: int, versions: Mapping[str, str]) -> None:
        """How the replica stands.

        Args:
            degraded: members that failed.
            waiting: images that wait or are scored.
            versions: role by name of the bundle.
        """
        with self._lock:
            self._degraded.put(value=degraded)
            self._waiting.put(value=waiting)
            self._versions.clear()
            for name, role in versions.items():
                self._versions.put(name, role, value=1)

    def text(self) -> str:
        """All sums of this replica since it started, in Prometheus' text format 0.0.4."""
        with self._lock:
            return "".join(f"{line}\n" for family in self._families() for line in family.text())

    def flush(self) -> None:
        """Hand what is new to Ray; without a running Ray it waits for the next time."""
        if not self._export.ready():
            return
        with self._lock:  # numbers are taken under the lock, and handed over without it
            counts = [(f, f.news()) for f in self._families() if isinstance(f, Count)]
            spreads = [(f, f.news()) for f in self._families() if isinstance(f, Spread)]
            levels = [(f, list(f.values.items())) for f in self._families() if isinstance(f, Level)]
        try:
            for count, added in counts:
                for labels, by in added:
                    self._export.count(count, labels, by)
            for spread, means in spreads:
                for mean, times in means:
                    self._export.spread(spread, mean, times)
            for level, values in levels:
                for labels, value in values:
                    self._export.level(level, labels, value)
        except Exception:  # Ray may go down at any time; requests go on
            logger.warning("metrics could not be handed to Ray", exc_info=True)

    def _families(self) -> list[Family]:
        return [value for value in vars(self).values() if isinstance(value, Family)]


class RayExport:
    """Ray's metrics, made when they are first needed."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def ready(self) -> bool:
        """Whether this process is part of a running Ray; Ray is not imported for the answer."""
        ray = sys.modules.get("ray")
        return ray is not None and bool(ray.is_initialized())

    def count(self, family: Count, labels: Labels, by: float) -> None:
        self._metric("Counter", family).inc(by, tags=_tags(family, labels))

    def level(self, family: Level, labels: Labels, value: float) -> None:
        self._metric("Gauge", family).set(value, tags=_tags(family, labels))

    def spread(self, family: Spread, value: float, times: int) -> None:
        metric = self._metric("Histogram", family, boundaries=list(family.bounds))
        for _ in range(times):
            metric.observe(value)

    def _metric(self, kind: str, family: Family, **options: Any) -> Any:
        if family.name not in self._made:
            from ray.util import metrics

            build = getattr(metrics, kind)
            self._made[family.name] = build(
                family.name, description=family.about, tag_keys=family.keys, **options
            )
        return self._made[family.name]


def _tags(family: Family, labels: Labels) -> dict[str, str]:
    return dict(zip(family.keys, labels, strict=True))
