import math
import sys
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from serving.monitor.families import MOST, Count, Labels, Level, Spread
from serving.monitor.metrics import Metrics, RayExport

FINITE = st.floats(-10, 10)


class Kept:
    """An export that keeps what it is given."""

    def __init__(self, *, up: bool = True) -> None:
        self.up = up
        self.counts: dict[tuple[str, Labels], float] = defaultdict(float)
        self.levels: dict[tuple[str, Labels], float] = {}
        self.spreads: dict[str, list[float]] = defaultdict(list)

    def ready(self) -> bool:
        return self.up

    def count(self, family: Count, labels: Labels, by: float) -> None:
        self.counts[family.name, labels] += by

    def level(self, family: Level, labels: Labels, value: float) -> None:
        self.levels[family.name, labels] = value

    def spread(self, family: Spread, value: float, times: int) -> None:
        self.spreads[family.name] += [value] * times


def rows(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What Prometheus reads in the text."""
    families = text_string_to_metric_families(metrics.text())
    found = [(s.name, frozenset(s.labels.items()), s.value) for f in families for s in f.samples]
    assert len({row[:2] for row in found}) == len(found)
    return {row[:2]: row[2] for row in found}


def row(metrics: Metrics, name: str, labels: Mapping[str, str] | None = None) -> float:
    return rows(metrics)[name, frozenset((labels or {}).items())]


def one_image(metrics: Metrics, **changes: Any) -> None:
    said: dict[str, Any] = {
        "bundle": "blue", "point": "sensitivity_0.95", "decision": "positive", "probability": 0.7,
        "top": "malignant", "novel": False, "asked": 2,
    }  # fmt: skip
    metrics.predicted(**said | changes)


def test_an_image_is_counted_by_what_was_said_of_it() -> None:
    metrics = Metrics(Kept())
    one_image(metrics)
    one_image(metrics, decision="refer", probability=0.2, top="benign", novel=True, asked=1)
    decided = {"bundle": "blue", "operating_point": "sensitivity_0.95"}
    assert row(metrics, "consilium_decisions_total", decided | {"decision": "positive"}) == 1
    assert row(metrics, "consilium_decisions_total", decided | {"decision": "refer"}) == 1
    assert row(metrics, "consilium_classes_total", {"bundle": "blue", "class": "benign"}) == 1
    assert row(metrics, "consilium_novel_total", {"bundle": "blue"}) == 1
    assert row(metrics, "consilium_members_asked_total", {"bundle": "blue", "asked": "1"}) == 1
    assert row(metrics, "consilium_probability_count") == 2
    assert row(metrics, "consilium_probability_sum") == pytest.approx(0.9)
    assert row(metrics, "consilium_probability_bucket", {"le": "0.1"}) == 0
    assert row(metrics, "consilium_probability_bucket", {"le": "0.2"}) == 1
    assert row(metrics, "consilium_probability_bucket", {"le": "+Inf"}) == 2


def test_a_bundle_without_a_positive_class_counts_no_decision_and_no_probability() -> None:
    metrics = Metrics(Kept())
    one_image(metrics, point=None, decision=None, probability=None, novel=None)
    assert row(metrics, "consilium_probability_count") == 0
    names = {name for name, _ in rows(metrics)}
    assert "consilium_classes_total" in names
    assert "consilium_decisions_total" not in names


def test_answers_refusals_and_comparisons_are_counted() -> None:
    metrics = Metrics(Kept())
    metrics.answered("/v1/predict", 200, 0.011)
    metrics.refused("too_large")
    metrics.compared("canary", agree=True, difference=0.03)
    metrics.compared("canary", agree=False, difference=math.nan)
    asked = {"route": "/v1/predict", "status": "200"}
    assert row(metrics, "consilium_requests_total", asked) == 1
    assert row(metrics, "consilium_request_seconds_bucket", {"le": "0.02"}) == 1
    assert row(metrics, "consilium_refusals_total", {"code": "too_large"}) == 1
    canary = {"role": "canary", "agree": "false"}
    assert row(metrics, "consilium_comparisons_total", canary) == 1
    assert row(metrics, "consilium_comparison_difference_count") == 1


def test_gauges_tell_the_latest_and_a_role_that_ended_is_0() -> None:
    metrics = Metrics(Kept())
    metrics.set_drift({"brightness": 0.3, "sharpness": math.inf})
    metrics.set_state(degraded=0, waiting=3, versions={"blue": "serving", "green": "canary"})
    metrics.set_state(degraded=1, waiting=2, versions={"green": "serving"})
    assert row(metrics, "consilium_drift_psi", {"statistic": "brightness"}) == 0.3
    assert len([name for name, _ in rows(metrics) if name == "consilium_drift_psi"]) == 1
    assert row(metrics, "consilium_degraded_members") == 1
    assert row(metrics, "consilium_waiting_images") == 2
    assert row(metrics, "consilium_version", {"bundle": "green", "role": "serving"}) == 1
    assert row(metrics, "consilium_version", {"bundle": "green", "role": "canary"}) == 0
    assert row(metrics, "consilium_version", {"bundle": "blue", "role": "serving"}) == 0


def test_two_threads_lose_nothing_while_a_third_flushes() -> None:
    export = Kept()
    metrics = Metrics(export)

    def work(_: int) -> None:
        for i in range(3000):
            one_image(metrics, probability=i / 3000)
            metrics.answered("/v1/predict", 200, 0.01)
            if i % 100 == 0:
                metrics.flush()

    between = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # or one thread does all of its work before the next begins
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(between)
    metrics.flush()
    asked = {"route": "/v1/predict", "status": "200"}
    assert row(metrics, "consilium_requests_total", asked) == 12_000
    assert row(metrics, "consilium_probability_count") == 12_000
    assert len(export.spreads["consilium_probability"]) == 12_000


def test_a_flush_hands_over_only_what_is_new() -> None:
    export = Kept()
    metrics = Metrics(export)
    metrics.refused("rate")
    metrics.flush()
    metrics.flush()
    assert export.counts == {("consilium_refusals_total", ("rate",)): 1}
    metrics.refused("rate")
    metrics.flush()
    assert export.counts["consilium_refusals_total", ("rate",)] == 2


def test_what_came_while_nothing_could_be_exported_is_exported_later() -> None:
    export = Kept(up=False)
    metrics = Metrics(export)
    metrics.answered("/healthz", 200, 0.001)
    metrics.flush()
    assert not export.counts
    export.up = True
    metrics.flush()
    assert export.counts["consilium_requests_total", ("/healthz", "200")] == 1
    assert export.spreads["consilium_request_seconds"] == [0.001]


def test_an_export_that_fails_fails_nobody(caplog: pytest.LogCaptureFixture) -> None:
    export = Kept()
    del export.counts
    metrics = Metrics(export)
    metrics.refused("rate")
    metrics.flush()
    assert "could not be handed to Ray" in caplog.text
    assert row(metrics, "consilium_refusals_total", {"code": "rate"}) == 1


def test_without_a_running_ray_a_flush_does_nothing() -> None:
    metrics = Metrics()
    metrics.refused("rate")
    metrics.flush()
    assert not RayExport().ready()
    assert row(metrics, "consilium_refusals_total", {"code": "rate"}) == 1


def test_rays_metrics_take_every_family() -> None:
    export = RayExport()
    export.count(Count("consilium_a_total", "A.", ("bundle", "class")), ("blue", "mel"), 2.0)
    export.level(Level("consilium_b", "B."), (), 0.0)
    export.spread(Spread("consilium_c", "C.", (0.1, 1)), 0.05, 3)


def test_labels_that_never_end_are_counted_together() -> None:
    metrics = Metrics(Kept())
    for index in range(MOST + 50):
        metrics.refused(f"code_{index}")
    refusals = {k: v for k, v in rows(metrics).items() if k[0] == "consilium_refusals_total"}
    assert len(refusals) == MOST + 1
    assert row(metrics, "consilium_refusals_total", {"code": "other"}) == 50
    metrics.refused("code_3")
    assert row(metrics, "consilium_refusals_total", {"code": "code_3"}) == 2


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20))
def test_any_label_is_read_back_as_it_was(name: str) -> None:
    metrics = Metrics(Kept())
    metrics.refused(name)
    codes = [dict(ls)["code"] for n, ls in rows(metrics) if n == "consilium_refusals_total"]
    assert codes == [name]


@given(st.lists(st.lists(FINITE, max_size=20), max_size=5))
@example([[math.nextafter(0.1, 1)] * 7])  # whose mean is rounded to 0.1
def test_means_fall_into_the_buckets_of_what_they_stand_for(parts: list[list[float]]) -> None:
    seen = Spread("seen", "Seen.", (0.1, 0.5, 1))
    handed = Spread("handed", "Handed.", (0.1, 0.5, 1))
    for part in parts:
        for value in part:
            seen.observe(value)
        for mean, times in seen.news():
            for _ in range(times):
                handed.observe(mean)
    assert handed.counts == seen.counts
    assert sum(handed.sums) == pytest.approx(sum(seen.sums), abs=1e-9)
