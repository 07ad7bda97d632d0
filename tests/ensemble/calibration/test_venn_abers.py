"""Venn-Abers is an isotonic fit for each label, at every possible score."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

from ensemble.calibration.calibrators import VennAbers
from ensemble.calibration.fits import fit
from ensemble.calibration.venn_abers import fit_venn_abers
from tests.ensemble.calibration.simulated import Floats, honest, two_columns

WHERE = np.arange(17) / 16  # exactly at scores of the images, between them and beyond them


def refitted(score: Floats, is_positive: NDArray[np.bool_]) -> Floats:
    """The plain way, (17, 2): an isotonic regression for each new image and label it may have."""
    return np.array(
        [[_isotonic(score, is_positive, at, label) for label in (0, 1)] for at in WHERE]
    )


def _isotonic(score: Floats, is_positive: NDArray[np.bool_], at: float, label: int) -> float:
    _, index = np.unique(np.append(score, at), return_inverse=True)
    counts = np.bincount(index).astype(float)
    means = np.bincount(index, weights=np.append(is_positive, label)) / counts
    return float(isotonic_regression(means, sample_weight=counts)[index[-1]])


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(1, 7), st.booleans()), min_size=1, max_size=25),
    st.integers(0, 1),
)
def test_it_is_what_a_refit_for_each_new_image_gives(
    images: list[tuple[int, bool]], column: int
) -> None:
    score = np.array([eighths / 8 for eighths, _ in images])
    is_positive = np.array([positive for _, positive in images])
    calibrator = fit_venn_abers(score, is_positive, column=column)
    found = calibrator.interval(two_columns(WHERE, column))
    np.testing.assert_allclose(found, refitted(score, is_positive), atol=1e-12)


def test_many_scores_with_and_without_ties_are_as_refitted() -> None:
    probs, labels = honest(300, seed=3)
    score = np.where(np.arange(300) % 3, probs[:, 1], (probs[:, 1] * 8).round() / 8)
    calibrator = fit_venn_abers(score, labels == 1, column=1)
    found = calibrator.interval(two_columns(WHERE))
    np.testing.assert_allclose(found, refitted(score, labels == 1), atol=1e-12)


def test_the_probability_lies_in_the_interval_and_rows_sum_to_one() -> None:
    probs, labels = honest(200)
    calibrator = fit("venn_abers", probs, labels, column=0)
    assert isinstance(calibrator, VennAbers)
    low, high = calibrator.interval(probs).T
    calibrated = calibrator.apply(probs)
    assert (low <= calibrated[:, 0]).all()
    assert (calibrated[:, 0] <= high).all()
    np.testing.assert_allclose(calibrated[:, 0], high / (1 - low + high))
    np.testing.assert_allclose(calibrated.sum(axis=1), 1, rtol=1e-15)


def test_perfectly_divided_images_leave_some_doubt() -> None:
    score = np.array([0.1, 0.2, 0.8, 0.9])
    calibrator = fit_venn_abers(score, score > 0.5, column=1)
    # A negative at 0.9 would be pooled with the two positives: 2 of 3.
    np.testing.assert_allclose(
        calibrator.interval(two_columns(score))[[0, 3]], [[0, 1 / 3], [2 / 3, 1]]
    )
    assert calibrator.apply(two_columns(np.array([1.0])))[0, 1] == pytest.approx(1 / (2 - 2 / 3))


def test_steps_that_are_none_are_not_kept() -> None:
    probs, labels = honest(2000)
    calibrator = fit_venn_abers(probs[:, 1], labels == 1, column=1)
    assert len(calibrator.scores) < 1500
    every = np.stack([calibrator.p0, calibrator.p1])
    assert (np.diff(every) >= 0).all()


def test_a_probability_a_little_above_one_is_one() -> None:
    probs = np.array([[0, 1.0000001], [0.4, 0.6], [0.7, 0.3]], np.float32)
    calibrator = fit("venn_abers", probs, np.array([1, 0, 1]), column=1)
    expected = calibrator.apply(np.array([[0.0, 1.0]]))
    np.testing.assert_allclose(calibrator.apply(probs[:1]), expected)
