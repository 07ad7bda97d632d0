"""A gate holds where the figures say so, and never where there are none."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.config import GateConfig
from ensemble.evaluation.gates import judge
from ensemble.evaluation.results import Estimate, Evaluation, PointResult, Subgroup, Verdict
from search.errors import ConfigError, GateError


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high)


def subgroup(
    column: str, value: str, *, n_positive: int | None, n: int = 100, **found: Any
) -> Subgroup:
    metrics = {name: estimate(number) for name, number in found.items()}
    return Subgroup(column=column, value=value, n=n, n_positive=n_positive, metrics=metrics)


def at_point(sensitivity: float, specificity: float) -> PointResult:
    return PointResult(
        name="first",
        target="a test's",
        threshold=0.5,
        certified=False,
        reason="a test's",
        n_positive=40,
        n_negative=60,
        sensitivity=estimate(sensitivity, sensitivity - 0.1, sensitivity + 0.02),
        specificity=estimate(specificity, specificity - 0.1, specificity + 0.02),
        ppv=estimate(None),
        npv=estimate(None),
        confusion=[[1, 0, 0], [0, 0, 1]],
    )


SUBGROUPS = [
    subgroup("sex", "female", n_positive=30, sensitivity=0.95, specificity=0.9, auroc=0.9),
    subgroup("sex", "male", n_positive=25, sensitivity=0.85, specificity=0.7, auroc=0.8),
    subgroup("site", "foot", n_positive=90, sensitivity=0.99, specificity=0.1, auroc=0.95),
    subgroup("site", "back", n_positive=4, sensitivity=0.25, specificity=0.8, auroc=0.85),
]


def evaluation(**changes: Any) -> Evaluation:
    found: dict[str, Any] = {
        "n_images": 100,
        "n_groups": 100,
        "classes": ["benign", "malignant"],
        "positive": "malignant",
        "prevalence": {"benign": 0.6, "malignant": 0.4},
        "metrics": {
            "auroc": estimate(0.9, 0.85, 0.95),
            "brier": estimate(0.2, 0.15, 0.25),
            "smooth_ece": estimate(0.05, 0.04, 0.06),
            "calibration_slope": estimate(1.0, 0.9, 1.1),
            "auprc": estimate(None),
            "sensitivity": estimate(0.6),
        },
        "per_class": [],
        "confusion": [[60, 0], [0, 40]],
        "operating_points": [at_point(0.95, 0.8)],
        "subgroups": SUBGROUPS,
    }
    return Evaluation(**(found | changes))


def one(gate: GateConfig, found: Evaluation | None = None, best: Any = None) -> Verdict:
    (verdict,) = judge([gate], found or evaluation(), best_single=best)
    return verdict


@pytest.mark.parametrize(
    ("limits", "holds"),
    [
        ({"at_least": 0.9}, True),
        ({"at_least": 0.901}, False),
        ({"at_most": 0.9}, True),
        ({"at_most": 0.899}, False),
    ],
)
def test_a_limit_is_of_the_value_and_may_be_met_exactly(limits: Any, holds: bool) -> None:
    verdict = one(GateConfig(metric="auroc", **limits))
    assert verdict.holds is holds
    assert verdict.details == {"value": 0.9}
    assert "it is 0.9" in verdict.rule


def test_the_rule_is_in_words_with_the_figures() -> None:
    verdict = one(GateConfig(metric="sensitivity", at_least=0.9, subgroups=True))
    assert verdict.gate == "sensitivity, subgroups"
    assert verdict.rule == (
        "sensitivity at least 0.9 in every subgroup of at least 20 positive images: "
        "worst of 3 is 0.85 in sex male (25)"
    )


def test_sensitivity_is_that_of_the_first_operating_point() -> None:
    gate = GateConfig(metric="sensitivity", at_least=0.9)
    assert one(gate).holds
    assert not one(gate, evaluation(operating_points=[])).holds  # 0.6, of the most probable class
    swapped = evaluation(operating_points=[at_point(0.7, 0.8), at_point(0.95, 0.8)])
    assert not one(gate, swapped).holds


def test_specificity_is_that_of_the_first_operating_point() -> None:
    assert one(GateConfig(metric="specificity", at_least=0.8)).holds
    assert not one(GateConfig(metric="specificity", at_least=0.81)).holds


def test_subgroups_are_counted_by_what_the_metric_is_about() -> None:
    # The foot has 10 negatives, the back 4 positives: neither is judged by so few.
    details = {
        name: set(one(GateConfig(metric=name, at_least=0.1, subgroups=True)).details)
        for name in ("sensitivity", "specificity", "auroc")
    }
    assert details["sensitivity"] == {"sex female", "sex male", "site foot"}
    assert details["specificity"] == {"sex female", "sex male", "site back"}
    assert len(details["auroc"]) == 4


@pytest.mark.parametrize(
    ("gate", "holds"),
    [
        (GateConfig(metric="sensitivity", at_least=0.85, subgroups=True), True),
        (GateConfig(metric="sensitivity", at_least=0.86, subgroups=True), False),
        (GateConfig(metric="sensitivity", at_least=0.85, subgroups=True, min_cases=4), False),
        (GateConfig(metric="auroc", at_most=0.95, subgroups=True), True),
        (GateConfig(metric="auroc", at_most=0.94, subgroups=True), False),
    ],
)
def test_the_worst_large_subgroup_decides(gate: GateConfig, holds: bool) -> None:
    assert one(gate).holds is holds


@pytest.mark.parametrize(
    ("parity", "holds"), [(0.1, True), (0.099, False)], ids=["0.95 - 0.85", "below"]
)
def test_parity_is_the_gap_within_a_column(parity: float, holds: bool) -> None:
    # Between columns it is 0.14, and the foot stands alone in its own.
    verdict = one(GateConfig(metric="sensitivity", parity=parity))
    assert verdict.holds is holds
    assert verdict.details == {"sex": pytest.approx(0.1)}
    assert "0.1 between sex male (0.85) and sex female (0.95)" in verdict.rule


def test_the_widest_column_decides_on_parity() -> None:
    found = one(GateConfig(metric="specificity", parity=0.1, min_cases=10))
    assert found.details == {"sex": pytest.approx(0.2), "site": pytest.approx(0.7)}
    assert not found.holds
    assert "between site foot" in found.rule


@pytest.mark.parametrize(
    ("metric", "low", "high", "holds"),
    [
        ("auroc", 0.9, 0.99, True),
        ("auroc", 0.91, 0.99, False),
        ("brier", 0.1, 0.2, True),
        ("brier", 0.1, 0.19, False),
        ("smooth_ece", 0.01, 0.05, True),
        ("smooth_ece", 0.01, 0.049, False),
    ],
)
def test_the_ensemble_may_reach_the_far_end_of_the_best_singles_interval(
    metric: str, low: float, high: float, holds: bool
) -> None:
    gate = GateConfig(metric=metric, not_worse_than="best single")
    as_estimates = {metric: estimate((low + high) / 2, low, high)}
    for best in (as_estimates, evaluation(metrics=as_estimates)):
        assert one(gate, best=best).holds is holds


def test_the_best_single_is_compared_at_its_own_operating_point() -> None:
    gate = GateConfig(metric="sensitivity", not_worse_than="best single")
    row = {"sensitivity": estimate(1, 0.99, 1), "sensitivity_at_point": estimate(0.9, 0.8, 0.95)}
    assert one(gate, best=row).holds
    assert one(gate, best=evaluation(operating_points=[at_point(1.05, 0.5)])).holds
    assert not one(gate, best=evaluation(operating_points=[at_point(1.06, 0.5)])).holds


@pytest.mark.parametrize(
    ("gate", "why"),
    [
        (GateConfig(metric="auprc", at_least=0.1), "undefined there"),
        (GateConfig(metric="auprc", at_most=0.9), "undefined there"),
        (GateConfig(metric="auprc", not_worse_than="best single"), "the ensemble has none"),
        (GateConfig(metric="auroc", not_worse_than="best single"), "the best single has none"),
        (GateConfig(metric="brier", at_most=1, subgroups=True), "undefined in sex female"),
        (GateConfig(metric="brier", parity=1), "undefined in sex female"),
        (GateConfig(metric="auroc", at_least=0, subgroups=True, min_cases=101), "none so large"),
        (GateConfig(metric="auroc", parity=1, min_cases=101), "no column has two subgroups"),
    ],
)
def test_what_cannot_be_judged_does_not_hold(gate: GateConfig, why: str) -> None:
    verdict = one(gate)
    assert not verdict.holds
    assert why in verdict.rule


def test_positives_that_nobody_counted_are_not_enough() -> None:
    unknown = [subgroup("sex", "male", n_positive=None, sensitivity=1.0)]
    verdict = one(
        GateConfig(metric="sensitivity", at_least=0.5, subgroups=True),
        evaluation(subgroups=unknown),
    )
    assert not verdict.holds


def test_an_unknown_metric_is_refused_before_any_is_judged() -> None:
    gates = [GateConfig(metric="auroc", at_least=0.5), GateConfig(metric="auroc2", at_least=0.5)]
    with pytest.raises(
        ConfigError, match=r"no metric 'auroc2'; there are auprc, auroc, .*specificity"
    ):
        judge(gates, evaluation(), best_single=None)


def test_a_metric_that_is_best_in_the_middle_is_compared_with_nobody() -> None:
    gate = GateConfig(metric="calibration_slope", not_worse_than="best single")
    with pytest.raises(ConfigError, match=r"calibration_slope is neither better higher nor lower"):
        judge([gate], evaluation(), best_single=None)


def test_verdicts_come_in_the_order_of_the_gates() -> None:
    gates = [GateConfig(metric=name, at_least=0.5) for name in ("brier", "auroc")]
    verdicts = judge(gates, evaluation(), best_single=None)
    assert [(v.gate, v.holds) for v in verdicts] == [("brier, test", False), ("auroc, test", True)]
    assert judge([], evaluation(), best_single=None) == []


def test_a_failed_gate_ends_with_another_code_than_bad_input() -> None:
    assert (GateError.exit_code, ConfigError.exit_code) == (1, 2)


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_stricter_floor_never_lets_more_through(first: float, second: float) -> None:
    easy, hard = sorted((first, second))
    held = [one(GateConfig(metric="auroc", at_least=limit)).holds for limit in (easy, hard)]
    assert held != [False, True]
