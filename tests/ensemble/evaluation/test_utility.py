"""Net benefit is what one counts by hand."""

import numpy as np
import pytest

from ensemble.evaluation.utility import THRESHOLDS, decision_curve

SCORE = np.array([0.9, 0.6, 0.5, 0.2, 0.1])
POSITIVE = np.array([True, False, True, False, False])
GROUPS = np.arange(5)


def test_net_benefit_is_true_positives_less_false_alarms_at_the_thresholds_odds() -> None:
    curve = decision_curve(
        SCORE, POSITIVE, GROUPS, thresholds=(0.1, 0.5, 0.55, 0.8, 0.95), replicates=50
    )
    assert [e.value for e in curve.bundle] == pytest.approx(
        [(2 - 3 / 9) / 5, (2 - 1) / 5, (1 - 1 * 0.55 / 0.45) / 5, 1 / 5, 0]
    )
    assert curve.treat_all == pytest.approx(
        [0.4 - 0.6 * t / (1 - t) for t in (0.1, 0.5, 0.55, 0.8, 0.95)]
    )


def test_below_all_scores_it_is_treating_all() -> None:
    curve = decision_curve(SCORE, POSITIVE, GROUPS, thresholds=(0.05,), replicates=20)
    assert curve.bundle[0].value == pytest.approx(curve.treat_all[0])


def test_intervals_hold_the_value_and_narrow_with_more_images() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (100, 1600):
        score = rng.uniform(size=n)
        positive = rng.uniform(size=n) < score
        curve = decision_curve(score, positive, np.arange(n), thresholds=(0.3,), replicates=300)
        (found,) = curve.bundle
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.35)


def test_the_default_thresholds_are_at_most_60_from_1_to_99_percent() -> None:
    curve = decision_curve(SCORE, POSITIVE, GROUPS, replicates=20)
    assert curve.thresholds == list(THRESHOLDS)
    assert len(curve.bundle) == len(curve.treat_all) == len(THRESHOLDS) <= 60
    assert (THRESHOLDS[0], THRESHOLDS[-1]) == (0.01, 0.99)


@pytest.mark.parametrize("thresholds", [(), (0.0, 0.5), (0.5, 1.0), (0.5, 0.4)])
def test_thresholds_out_of_range_or_order_are_refused(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"thresholds must increase from above 0 to below 1"):
        decision_curve(SCORE, POSITIVE, GROUPS, thresholds=thresholds)


def test_another_number_of_groups_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one outcome and group a score: 5, 5, 4"):
        decision_curve(SCORE, POSITIVE, GROUPS[:4])
