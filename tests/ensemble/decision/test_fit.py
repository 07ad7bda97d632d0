"""A pool is calibrated on some held-back cases and certified on them only where that is right."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.decision.fit import certifying_half, fit_decision
from ensemble.decision.points import PointConfig
from search.errors import StudyError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
POINTS = {"safe": PointConfig(sensitivity=0.9), "fixed": PointConfig(threshold=0.3)}


def cases(n: int = 200, *, n_classes: int = 2, seed: int = 0) -> tuple[Floats, Ints]:
    """Overconfident probabilities of labels that are more often right than not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    logits = 3 * (1.5 * np.eye(n_classes)[labels] + rng.normal(0, 1, (n, n_classes)))
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), labels


def test_two_classes_are_calibrated_and_certified_on_all_cases() -> None:
    pooled, labels = cases()
    found = fit_decision(pooled, labels, np.arange(200), positive=1, points=POINTS)
    np.testing.assert_allclose(found.calibrated, found.calibrator.apply(pooled))
    assert [p.name for p in found.operating_points] == ["safe", "fixed"]
    safe = found.operating_points[0]
    assert (safe.n_positive, safe.n_negative) == (labels.sum(), 200 - labels.sum())
    assert (found.calibrated[labels == 1, 1] >= safe.threshold).mean() == safe.sensitivity
    assert sum(worth.chosen for worth in found.calibrator_worth) == 1


def test_calibration_takes_confidence_back() -> None:
    pooled, labels = cases()
    found = fit_decision(pooled, labels, np.arange(200), positive=1, points={})
    assert np.abs(found.calibrated - 0.5).mean() < np.abs(pooled - 0.5).mean() - 0.01


def test_cases_that_certify_never_touch_the_calibrator() -> None:
    pooled, labels = cases(300, n_classes=3)
    groups, certifies = np.arange(300), np.arange(300) % 2 == 0
    given = {"positive": 2, "points": POINTS, "certifies": certifies}
    found = fit_decision(pooled, labels, groups, **given)
    changed = np.where(certifies[:, None], np.roll(pooled, 1, axis=1), pooled)
    again = fit_decision(changed, labels, groups, **given)
    assert again.calibrator == found.calibrator
    assert again.operating_points != found.operating_points


def test_cases_that_calibrate_are_not_counted_at_the_points() -> None:
    pooled, labels = cases(300, n_classes=3)
    certifies = np.arange(300) % 2 == 0
    found = fit_decision(
        pooled, labels, np.arange(300), positive=2, points=POINTS, certifies=certifies
    )
    fixed = found.operating_points[1]
    assert fixed.n_positive + fixed.n_negative == 150
    counted = certifies & (labels == 2)
    assert (found.calibrated[counted, 2] >= 0.3).mean() == pytest.approx(fixed.sensitivity)
    assert found.calibrated.shape == (300, 3)


def test_without_a_positive_class_there_are_no_points() -> None:
    pooled, labels = cases(n_classes=3)
    found = fit_decision(pooled, labels, np.arange(200), positive=None, points=POINTS)
    assert found.operating_points == []


@pytest.mark.parametrize("value", [True, False])
def test_a_mask_that_leaves_nothing_to_one_side_is_an_error(value: bool) -> None:
    pooled, labels = cases()
    with pytest.raises(StudyError, match=r"too few groups of linked images to both calibrate"):
        fit_decision(
            pooled, labels, np.arange(200), positive=1, points={}, certifies=np.full(200, value)
        )


def test_only_several_classes_with_a_positive_one_are_divided() -> None:
    labels = np.arange(60) % 3
    groups = np.arange(60)
    assert certifying_half(labels, groups, positive=1, n_classes=2) is None
    assert certifying_half(labels, groups, positive=None, n_classes=3) is None
    assert certifying_half(labels, groups, positive=1, n_classes=3) is not None


def test_the_halves_share_every_class_and_no_group() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), rng.integers(1, 4, 200))
    labels = np.array([0, 0, 0, 0, 1, 1, 2] * 29)[groups]
    half = certifying_half(labels, groups, positive=2, n_classes=3, seed=1)
    assert half is not None
    assert not set(groups[half]) & set(groups[~half])
    for label in range(3):
        assert half[labels == label].mean() == pytest.approx(0.5, abs=0.03)
    again = certifying_half(labels, groups, positive=2, n_classes=3, seed=1)
    np.testing.assert_array_equal(half, again)
