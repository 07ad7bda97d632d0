"""Operating points say what they were chosen for, what they do, and what is promised."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.decision.choose import choose_point, choose_points, one_per_group
from ensemble.decision.intervals import clopper_pearson
from ensemble.decision.points import PointConfig, ReferConfig
from search.errors import StudyError

SCORE = np.array([0.9, 0.8, 0.7, 0.6, 0.4, 0.2])
POSITIVE = np.array([True, True, False, True, False, False])
EACH_ALONE = np.arange(6)

ASKED = {
    "sensitivity": PointConfig(sensitivity=0.9),
    "rate": PointConfig(false_negative_rate=0.1),
    "specificity": PointConfig(specificity=0.9),
    "cost": PointConfig(cost_ratio=5),
    "youden": PointConfig(youden=True),
    "refer": PointConfig(refer=ReferConfig(share=0.2, sensitivity=0.95)),
}


def many(n_positive: int = 100, n_negative: int = 150) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(5)
    score = np.append(rng.beta(4, 2, n_positive), rng.beta(2, 4, n_negative))
    n = n_positive + n_negative
    return score, np.arange(n) < n_positive, np.arange(n)


def test_the_threshold_of_a_cost() -> None:
    point = choose_point("cheap", PointConfig(cost_ratio=0.1), SCORE, POSITIVE, EACH_ALONE)
    assert point.threshold == pytest.approx(0.75)
    assert point.target == "least cost, a miss costing 0.1 false alarms"
    assert (point.aim, point.certified) == (0.1, False)
    assert point.reason.startswith("asks for no rate that could be certified")


def test_youden_is_the_most_sensitivity_and_specificity() -> None:
    point = choose_point("y", PointConfig(youden=True), SCORE, POSITIVE, EACH_ALONE)
    assert point.threshold == pytest.approx(0.5)
    assert point.sensitivity + point.specificity == pytest.approx(1 + 2 / 3)
    assert (point.aim, point.certified) == (None, False)


def test_youden_weighs_the_rates_and_not_the_counts() -> None:
    score, is_positive, groups = many(20, 400)
    point = choose_point("y", PointConfig(youden=True), score, is_positive, groups)
    best = max(
        (score[is_positive] >= t).mean() + (score[~is_positive] < t).mean()
        for t in np.unique(score)
    )
    assert point.sensitivity + point.specificity == pytest.approx(best)


def test_a_fixed_threshold_is_only_measured() -> None:
    point = choose_point("half", PointConfig(threshold=0.65), SCORE, POSITIVE, EACH_ALONE)
    assert point.threshold == 0.65
    assert (point.sensitivity, point.specificity) == pytest.approx((2 / 3, 2 / 3))
    assert point.sensitivity_interval == pytest.approx(clopper_pearson(2, 3))
    assert (point.certified, point.reason[:19]) == (False, "fixed by the config")


def test_a_sensitivity_too_few_positives_can_prove_is_the_best_here_and_says_so() -> None:
    score, is_positive, groups = many(41, 100)
    point = choose_point("high", PointConfig(sensitivity=0.95), score, is_positive, groups)
    assert not point.certified
    assert point.reason == "not certifiable with n₊ = 41: 72 positives without a miss are needed"
    assert 0.95 <= point.sensitivity < 1
    assert (point.n_positive, point.n_negative, point.aim) == (41, 100, 0.95)


def test_a_certified_sensitivity_has_its_interval_above_the_aim() -> None:
    score, is_positive, groups = many(150, 100)
    config = PointConfig(sensitivity=0.95, confidence=0.9)
    point = choose_point("high", config, score, is_positive, groups)
    assert point.certified
    assert point.confidence == 0.9
    assert point.sensitivity_interval[0] >= 0.95
    hits = round(point.sensitivity * 150)
    assert point.sensitivity_interval == pytest.approx(clopper_pearson(hits, 150, confidence=0.9))
    assert point.reason == (
        f"{150 - hits} of 150 positives missed: the exact 90% interval of the sensitivity is "
        "above 0.95"
    )


def test_a_false_negative_rate_is_kept_on_average_and_not_with_a_confidence() -> None:
    score, is_positive, groups = many(39, 100)
    config = PointConfig(false_negative_rate=0.05)
    point = choose_point("crc", config, score, is_positive, groups)
    assert point.certified
    assert "not with a confidence" in point.reason
    assert point.sensitivity == pytest.approx(38 / 39)  # (1 + 1) / 40 is 0.05, (2 + 1) / 40 is not


def test_a_false_negative_rate_too_few_positives_can_promise_is_refused() -> None:
    score, is_positive, groups = many(10, 100)
    config = PointConfig(false_negative_rate=0.05)
    point = choose_point("crc", config, score, is_positive, groups)
    assert not point.certified
    assert point.reason == "not certifiable with n₊ = 10: 19 positives are needed"
    assert point.sensitivity >= 0.95


def test_a_specificity_is_certified_or_the_best_here() -> None:
    score, is_positive, groups = many(50, 150)
    point = choose_point("s", PointConfig(specificity=0.9), score, is_positive, groups)
    assert point.certified
    assert point.specificity_interval[0] >= 0.9
    score, is_positive, groups = many(50, 20)
    point = choose_point("s", PointConfig(specificity=0.9), score, is_positive, groups)
    assert not point.certified
    assert point.specificity == pytest.approx(0.9)
    assert "n₋ = 20" in point.reason


def test_a_specificity_is_possible_even_where_all_scores_are_one() -> None:
    config = PointConfig(specificity=0.9)
    point = choose_point("s", config, np.ones(6), POSITIVE, EACH_ALONE)
    assert (point.threshold, point.specificity, point.certified) == (1, 0, False)


@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["sensitivity", "specificity", "false_negative_rate"])
def test_rates_of_zero_and_one_are_no_trouble(kind: str, rate: float) -> None:
    config = PointConfig.model_validate({kind: rate})
    point = choose_point("extreme", config, SCORE, POSITIVE, EACH_ALONE)
    assert 0 <= point.threshold <= 1


def test_a_refer_band_has_two_thresholds_and_no_promise() -> None:
    score, is_positive, groups = many()
    point = choose_point("refer", ASKED["refer"], score, is_positive, groups)
    assert point.refer_from is not None
    assert point.refer_from < point.threshold
    assert point.sensitivity >= 0.95
    assert 0.1 < point.referred <= 0.2
    assert point.referred == pytest.approx(np.mean([point.decide(s) == "refer" for s in score]))
    assert point.sensitivity == pytest.approx(
        np.mean([point.decide(s) != "negative" for s in score[is_positive]])
    )
    assert point.specificity == pytest.approx(
        np.mean([point.decide(s) != "positive" for s in score[~is_positive]])
    )
    assert not point.certified
    assert point.target == (
        "at most 0.2 of the images referred and sensitivity at least 0.95, then most specificity"
    )


def test_points_come_in_the_order_they_are_named() -> None:
    score, is_positive, groups = many()
    points = choose_points(ASKED, score, is_positive, groups, seed=2)
    assert [point.name for point in points] == list(ASKED)
    assert [point.kind for point in points] == [config.kind for config in ASKED.values()]
    for point in points:
        alone = choose_point(point.name, ASKED[point.name], score, is_positive, groups, seed=2)
        assert alone == point


def test_more_images_of_the_same_lesions_prove_nothing_more() -> None:
    score, is_positive, groups = many(41, 100)
    copies = [np.tile(values, 3) for values in (score, is_positive, groups)]
    config = PointConfig(sensitivity=0.95)
    point = choose_point("high", config, *copies)
    assert (point.n_positive, point.n_negative) == (41, 100)
    assert point == choose_point("high", config, score, is_positive, groups)


def test_one_image_of_each_group_is_drawn_evenly() -> None:
    groups = np.array(["b", "a", "b", "c", "b"])
    drawn = [one_per_group(groups, seed=seed) for seed in range(300)]
    assert all(sorted(groups[rows]) == ["a", "b", "c"] for rows in drawn)
    assert all((np.diff(rows) > 0).all() for rows in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=5)
    assert counts[[1, 3]].tolist() == [300, 300]
    assert (counts[[0, 2, 4]] > 60).all()
    assert one_per_group(groups, seed=4).tolist() == one_per_group(groups, seed=4).tolist()


def assert_same_decisions(points: dict[str, PointConfig], score: Any, change: Any, n: int) -> None:
    is_positive, groups = np.arange(150) < n, np.arange(150) % 140  # ten groups of two
    kept = one_per_group(groups)
    before = choose_points(points, score, is_positive, groups)
    after = choose_points(points, change(score), is_positive, groups)
    for one, other in zip(before, after, strict=True):
        decisions = [one.decide(s) for s in score[kept]]
        assert decisions == [other.decide(s) for s in change(score)[kept]]
        assert (one.certified, one.reason) == (other.certified, other.reason)


CHANGES = [lambda s: s**3, np.sqrt, lambda s: 0.3 + s / 3, lambda s: s / (2 - s)]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 200), min_size=150, max_size=150),
    st.integers(70, 100),
    st.sampled_from(CHANGES),
)
def test_a_monotone_change_of_the_score_changes_no_decision(
    levels: list[int], n_positive: int, change: Any
) -> None:
    points = {name: config for name, config in ASKED.items() if config.refer is None}
    assert_same_decisions(points, np.array(levels) / 201, change, n_positive)


def test_a_monotone_change_of_the_score_changes_no_refer_band() -> None:
    score = np.random.default_rng(0).integers(1, 200, 150) / 201
    assert_same_decisions({"refer": ASKED["refer"]}, score, CHANGES[0], 80)


@pytest.mark.parametrize(
    ("labels", "missing"), [(np.zeros(6), "positive"), (np.ones(6), "negative")]
)
def test_a_slice_without_one_of_the_classes_is_one_clear_line(labels: Any, missing: str) -> None:
    with pytest.raises(
        StudyError, match=rf"no {missing} among the 6 cases .* raise splits\.calibration"
    ):
        choose_points(ASKED, SCORE, labels.astype(np.bool_), EACH_ALONE)


def test_scores_that_are_no_probabilities_are_refused() -> None:
    config = PointConfig(threshold=0.5)
    with pytest.raises(ValueError, match=r"score must be in \[0, 1\]"):
        choose_point("p", config, np.append(SCORE[:5], np.nan), POSITIVE, EACH_ALONE)
    with pytest.raises(ValueError, match=r"must be \(n_images,\)"):
        choose_point("p", config, SCORE[:5], POSITIVE, EACH_ALONE)
