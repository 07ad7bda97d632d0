"""What differs between home and away is found, and nothing where nothing does."""

import numpy as np
import pytest

from ensemble.decision.points import PointConfig
from ensemble.evaluation.results import Estimate
from ensemble.sites.judging import Cases, How, judge
from ensemble.sites.results import difference, mean, promised, verdict
from tests.points import a_point

HOW = How(1, {"safe": PointConfig(sensitivity=0.9)}, replicates=200)


def cases(n: int, *, shift: float = 0.0, seed: int = 0, n_classes: int = 2) -> Cases:
    """Images of which the right class is told mostly; `shift` takes from the positive's logit."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    logits = 2 * np.eye(n_classes)[labels] + rng.normal(0, 1, (n, n_classes))
    logits[:, 1] -= shift
    powers = np.exp(logits)
    return Cases(powers / powers.sum(axis=1, keepdims=True), labels, np.arange(n))


def test_a_site_like_the_others_shows_no_difference() -> None:
    found = judge(cases(400), cases(300, seed=1), HOW)
    for name in ("auroc", "nll", "sensitivity", "specificity"):
        each = found.difference[name]
        assert each.low is not None
        assert each.high is not None
        assert each.low < 0 < each.high
    assert found.held == "yes"
    assert (found.away.n, found.home.n) == (300, 400)


def test_a_shifted_site_loses_its_sensitivity_though_it_ranks_as_well() -> None:
    found = judge(cases(400), cases(300, seed=1, shift=3), HOW)
    sensitivity, loss = found.difference["sensitivity"], found.difference["nll"]
    assert sensitivity.high is not None
    assert sensitivity.high < -0.2
    assert loss.low is not None
    assert loss.low > 0
    assert abs(found.difference["auroc"].value or 0) < 0.05
    assert found.held == "no"


def test_home_is_judged_by_thresholds_of_other_images() -> None:
    """On the images that chose it, a threshold always keeps its rate; on others it may not."""
    least = [
        judge(cases(60, seed=s), cases(60, seed=99), HOW).home.metrics["sensitivity"].value or 0.0
        for s in range(12)
    ]
    assert min(least) < 0.9
    assert np.mean(least) > 0.85


def test_several_classes_have_a_point_about_the_positive_one() -> None:
    found = judge(cases(400, n_classes=3), cases(200, n_classes=3, seed=1), HOW)
    assert found.away.n_positive == (cases(200, n_classes=3, seed=1).labels == 1).sum()
    assert found.away.metrics["sensitivity"].value is not None


def test_without_a_positive_class_there_is_no_point() -> None:
    found = judge(cases(200), cases(100, seed=1), How(None, {}, replicates=200))
    assert found.held is None
    assert not found.decided.operating_points
    assert set(found.away.metrics) == {"auroc", "nll", "brier", "ece"}
    assert found.away.n_positive is None


@pytest.mark.parametrize(
    ("value", "low", "high", "told"),
    [
        (0.97, 0.93, 0.99, "yes"),
        (0.90, 0.86, 0.96, "yes"),
        (1.00, 0.70, 1.00, "too few"),
        (0.80, 0.60, 0.96, "too few"),
        (0.90, 0.86, 0.94, "no"),
        (None, None, None, "too few"),
    ],
)
def test_a_verdict_says_too_few_rather_than_guess(
    value: float | None, low: float | None, high: float | None, told: str
) -> None:
    assert verdict(Estimate(value=value, low=low, high=high), 0.95) == told


def test_what_a_point_promises_depends_on_its_kind() -> None:
    def of(kind: str, aim: float | None) -> tuple[str, float] | None:
        return promised(a_point("p", 0.5).model_copy(update={"kind": kind, "aim": aim}))

    assert of("sensitivity", 0.95) == ("sensitivity", 0.95)
    assert of("specificity", 0.8) == ("specificity", 0.8)
    assert of("false_negative_rate", 0.05) == ("sensitivity", 0.95)
    assert of("cost_ratio", 20) is None
    assert of("youden", None) is None


def wilson(hits: int, n: int) -> Estimate:
    """A rate with Wilson's 95% interval."""
    p, z = hits / n, 1.959964
    middle, reach = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    scale = 1 + z**2 / n
    return Estimate(value=p, low=(middle - reach) / scale, high=(middle + reach) / scale)


def test_intervals_of_differences_are_newcombes() -> None:
    """56/70 against 48/80: Newcombe 1998, table II, example (a), method 10."""
    found = difference(wilson(56, 70), wilson(48, 80))
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=1e-4)
    assert found.high == pytest.approx(0.3339, abs=1e-4)


def test_a_mean_counts_each_site_once_and_is_surer_than_one() -> None:
    each = Estimate(value=0.8, low=0.7, high=0.9)
    found = mean([each, Estimate(value=0.6, low=0.5, high=0.7)])
    assert found.value == pytest.approx(0.7)
    assert found.low == pytest.approx(0.7 - 0.1 / 2**0.5)
    assert mean([each, Estimate(value=0.6)]).low is None
    assert difference(each, Estimate(value=None)).value is None
