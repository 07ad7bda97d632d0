"""Figures of what decisions are worth."""

from ensemble.evaluation.results import DecisionCurve, RiskCoverage
from ensemble.pages.benefit import benefit_figure, coverage_figure, refer_figure
from tests.ensemble.pages.stories import Band, est

FRONT = [Band(0.1, 0.9, 0.99, 0.95, 0.5), Band(0.3, 0.85, 0.96, 0.9, 0.2)]


def test_a_decision_curve_stands_beside_treating_all_and_none() -> None:
    curve = DecisionCurve(
        thresholds=[0.1, 0.2, 0.3],
        bundle=[est(0.3, 0.2, 0.4), est(None), est(0.1, 0.0, 0.2)],
        treat_all=[0.3, 0.0, -9.0],
    )
    figure = benefit_figure(curve)
    names = [line.name for line in figure.data]
    assert names == ["low", "high", "by this bundle", "treat all", "treat none"]
    assert list(figure.data[0].x) == [0.1, 0.3]
    low, high = figure.layout.yaxis.range
    assert -1 < low < 0  # treating all falls out of the frame, not the rest
    assert 0.4 < high < 1


def test_a_curve_without_intervals_has_no_band() -> None:
    curve = DecisionCurve(thresholds=[0.1], bundle=[est(0.3)], treat_all=[0.2])
    assert len(benefit_figure(curve).data) == 3


def test_the_front_is_drawn_by_share_and_the_chosen_pair_ringed() -> None:
    sensitivity, specificity, ring = refer_figure(FRONT, (0.3, 0.85)).data
    assert list(sensitivity.x) == list(specificity.x) == [0.2, 0.5]
    assert list(sensitivity.y) == [0.96, 0.99]
    assert list(ring.y) == [0.96, 0.9]
    assert len(refer_figure(FRONT, (0.3, 0.8)).data) == 2
    assert len(refer_figure(FRONT).data) == 2


def test_the_risk_of_all_images_is_the_line_to_compare_with() -> None:
    own, everyone = coverage_figure(RiskCoverage(coverage=[0.5, 1.0], risk=[0.0, 0.2])).data
    assert list(own.y) == [0.0, 0.2]
    assert list(everyone.y) == [0.2, 0.2]
