"""The calibrator that is chosen is the simplest one as good as the best on other groups."""

import numpy as np
import pytest

from ensemble.calibration.calibrators import Beta, Identity, Platt, Temperature, Vector
from ensemble.calibration.choose import (
    candidate_kinds,
    choose_calibrator,
    cross_fitted_losses,
    divide,
)
from search.errors import StudyError
from search.training.metrics import nll
from tests.ensemble.calibration.simulated import Ints, drawn, honest, two_columns


def alone(labels: Ints) -> Ints:
    """Every image is a group of its own."""
    return np.arange(len(labels))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_probabilities_that_are_calibrated_stay_as_they_are(n_classes: int) -> None:
    probs, labels = honest(2000, n_classes=n_classes)
    calibrator, worths = choose_calibrator(probs, labels, alone(labels), positive=None)
    assert calibrator == Identity()
    assert [worth.kind for worth in worths if worth.chosen] == ["identity"]
    assert worths[0].nll == pytest.approx(nll(probs, labels))


def test_a_temperature_is_chosen_where_confidence_is_all_that_is_wrong() -> None:
    probs, labels = honest(2000, n_classes=4)
    sharp = Temperature(temperature=0.4).apply(probs)
    calibrator, worths = choose_calibrator(sharp, labels, alone(labels), positive=2)
    assert isinstance(calibrator, Temperature)
    assert calibrator.temperature == pytest.approx(2.5, rel=0.06)
    assert [worth.kind for worth in worths] == ["identity", "temperature", "vector", "structured"]


@pytest.mark.parametrize("positive", [0, 1])
def test_a_shift_of_two_classes_takes_platt_for_the_positive_one(positive: int) -> None:
    probs, labels = honest(2000)
    shifted = Platt(column=1, a=1.5, b=-2).apply(probs)
    calibrator, worths = choose_calibrator(shifted, labels, alone(labels), positive=positive)
    assert isinstance(calibrator, Platt)
    assert calibrator.column == positive
    assert [worth.kind for worth in worths] == [
        "identity", "temperature", "platt", "beta", "venn_abers",
    ]  # fmt: skip


def test_tails_of_different_slopes_take_beta() -> None:
    score = np.random.default_rng(0).uniform(0.02, 0.98, 4000)
    labels = drawn(Beta(column=1, a=0.2, b=2.5, c=0.5).apply(two_columns(score)))
    calibrator, _ = choose_calibrator(two_columns(score), labels, alone(labels), positive=1)
    assert isinstance(calibrator, Beta)


def test_biases_of_more_classes_take_a_vector() -> None:
    probs, labels = honest(2000, n_classes=4)
    biased = Vector(scale=(1, 1, 1, 1), bias=(1, 0, -1, 0)).apply(probs)
    calibrator, worths = choose_calibrator(biased, labels, alone(labels), positive=None)
    assert isinstance(calibrator, Vector)
    best = min(worths, key=lambda worth: worth.nll)
    assert best.difference == best.standard_error == 0
    assert all(worth.difference >= 0 for worth in worths)


@pytest.mark.parametrize(
    ("n_rarest", "n", "n_classes", "expected"),
    [
        (49, 3000, 2, ("identity", "temperature", "platt")),
        (50, 999, 2, ("identity", "temperature", "platt", "beta")),
        (50, 1000, 2, ("identity", "temperature", "platt", "beta", "venn_abers")),
        (49, 3000, 3, ("identity", "temperature")),
        (50, 101, 3, ("identity", "temperature", "vector", "structured")),
    ],
)
@pytest.mark.parametrize("rarest", [0, 1])
def test_few_cases_allow_few_parameters(
    n_rarest: int, n: int, n_classes: int, expected: tuple[str, ...], rarest: int
) -> None:
    labels = np.full(n, 1 - rarest)
    labels[:n_rarest] = rarest
    assert candidate_kinds(labels, alone(labels), n_classes) == expected


def test_linked_images_are_one_case() -> None:
    labels = np.arange(2400) % 2
    assert "venn_abers" in candidate_kinds(labels, np.arange(2400) // 2, 2)
    assert "venn_abers" not in candidate_kinds(labels, np.arange(2400) // 4, 2)
    assert candidate_kinds(labels, np.arange(2400) // 60, 2)[-1] == "platt"


def test_folds_part_no_group_and_spread_the_classes() -> None:
    labels = (np.arange(400) % 8 == 0).astype(np.int64)
    groups = np.arange(400) // 3
    fold_of = divide(labels, groups, folds=5, seed=0)
    assert set(fold_of.tolist()) == {0, 1, 2, 3, 4}
    assert all(len(np.unique(fold_of[groups == group])) == 1 for group in np.unique(groups))
    assert np.bincount(fold_of, weights=labels).tolist() == [10] * 5


def test_a_fit_never_sees_the_images_it_is_judged_by() -> None:
    # Only the images of fold 0 have positives: their fit has seen none and expects none.
    labels = np.array([1, 1, 0, 0, 0, 0])
    fold_of = np.array([0, 0, 1, 1, 1, 1])
    losses = cross_fitted_losses("platt", np.full((6, 2), 0.5), labels, fold_of, column=1)
    np.testing.assert_allclose(losses[:2], -np.log(1 / 6), rtol=1e-3)
    np.testing.assert_allclose(losses[2:], -np.log(1 / 4), rtol=1e-3)


def test_a_class_that_some_folds_lack_is_no_obstacle() -> None:
    probs, labels = honest(300, n_classes=3)
    kept = (labels != 2) | (np.cumsum(labels == 2) == 1)  # one image of the last class
    probs, labels = probs[kept], labels[kept]
    _, worths = choose_calibrator(probs, labels, alone(labels), positive=None)
    assert [worth.kind for worth in worths] == ["identity", "temperature"]
    assert all(np.isfinite(worth.nll) for worth in worths)


def test_two_positives_are_enough_to_compare() -> None:
    probs, labels = honest(60)
    first_two = (labels == 0) | (np.cumsum(labels) <= 2)
    probs, labels = probs[first_two], labels[first_two]
    _, worths = choose_calibrator(probs, labels, alone(labels), positive=1)
    assert [worth.kind for worth in worths] == ["identity", "temperature", "platt"]


@pytest.mark.parametrize("n_groups", [1, 2])
def test_too_few_groups_leave_the_probabilities_as_they_are(n_groups: int) -> None:
    labels = np.repeat([0, 1], 10)
    groups = labels if n_groups == 2 else np.zeros(20, np.int64)
    calibrator, worths = choose_calibrator(honest(20)[0], labels, groups, positive=1)
    assert calibrator == Identity()
    assert [(worth.kind, worth.chosen) for worth in worths] == [("identity", True)]
    assert (worths[0].difference, worths[0].standard_error) == (0, 0)


def test_the_choice_is_the_same_each_time() -> None:
    probs, labels = honest(400)
    first = choose_calibrator(probs, labels, alone(labels), positive=1, seed=3)
    assert choose_calibrator(probs, labels, alone(labels), positive=1, seed=3) == first


def test_what_cannot_be_calibrated_is_refused() -> None:
    probs, labels = honest(30)
    with pytest.raises(
        StudyError, match=r"no positives in the calibration slice: .*raise splits\."
    ):
        choose_calibrator(probs, np.zeros(30, np.int64), alone(labels), positive=1)
    with pytest.raises(StudyError, match=r"no image in the calibration slice"):
        choose_calibrator(probs[:0], labels[:0], labels[:0], positive=1)
    broken = probs.copy()
    broken[3, 0] = np.nan
    with pytest.raises(StudyError, match=r"NaN or infinite .* for 1 of 30 images .* row 3"):
        choose_calibrator(broken, labels, alone(labels), positive=1)
    with pytest.raises(ValueError, match=r"rows must sum to 1"):
        choose_calibrator(probs * 2, labels, alone(labels), positive=1)
