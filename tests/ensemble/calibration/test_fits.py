"""Fits find a known distortion, and stay finite where the images leave them free."""

import numpy as np
import pytest

from ensemble.calibration.calibrators import (
    Beta,
    Calibrator,
    Kind,
    Platt,
    Structured,
    Temperature,
    Vector,
)
from ensemble.calibration.fits import fit, fit_part, fit_temperature
from search.errors import StudyError
from search.training.metrics import nll
from tests.ensemble.calibration.simulated import drawn, honest, two_columns

OF_TWO: list[Kind] = ["identity", "temperature", "platt", "beta", "venn_abers"]
OF_MORE: list[Kind] = ["identity", "temperature", "vector", "structured"]


@pytest.mark.parametrize("distortion", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_a_known_temperature_is_found(distortion: float, n_classes: int) -> None:
    probs, labels = honest(n_classes=n_classes)
    distorted = Temperature(temperature=1 / distortion).apply(probs)
    assert fit_temperature(distorted, labels).temperature == pytest.approx(distortion, rel=0.06)


@pytest.mark.parametrize("column", [0, 1])
def test_a_known_slope_and_intercept_are_found(column: int) -> None:
    probs, labels = honest(8000)
    distorted = Platt(column=column, a=2, b=-1.5).apply(probs)
    found = fit("platt", distorted, labels, column=column)
    assert isinstance(found, Platt)
    assert found.a == pytest.approx(0.5, rel=0.06)
    assert found.b == pytest.approx(0.75, rel=0.1)


def test_a_known_beta_distortion_is_found() -> None:
    # The scores are such that beta calibration with these parameters gives the true probabilities.
    score = np.random.default_rng(0).uniform(0.02, 0.98, 20_000)
    truth = Beta(column=1, a=0.5, b=1.6, c=0.8).apply(two_columns(score))
    found = fit("beta", two_columns(score), drawn(truth))
    assert isinstance(found, Beta)
    assert (found.a, found.b, found.c) == pytest.approx((0.5, 1.6, 0.8), rel=0.1)
    np.testing.assert_allclose(found.apply(two_columns(score)), truth, atol=0.02)


def test_known_scales_and_biases_are_found() -> None:
    probs, labels = honest(20_000, n_classes=3)
    distorted = Vector(scale=(2, 2, 2), bias=(1.2, 0, -1.2)).apply(probs)
    found = fit("vector", distorted, labels)
    assert isinstance(found, Vector)
    np.testing.assert_allclose(found.scale, 0.5, atol=0.05)
    # Biases are known up to a constant.
    np.testing.assert_allclose(np.array(found.bias) - found.bias[1], [-0.6, 0, 0.6], atol=0.1)
    np.testing.assert_allclose(found.apply(distorted), probs, atol=0.02)


def test_what_one_class_took_from_another_is_given_back() -> None:
    probs, labels = honest(8000, n_classes=3)
    took = Structured(matrix=((1.5, 0, 0), (0, 1, 0.5), (0, 0, 1.5)), bias=(0, 0, 0))
    mixed = took.apply(probs)
    found = fit("structured", mixed, labels)
    assert isinstance(found, Structured)
    assert found.matrix[1][2] < -0.15
    np.testing.assert_allclose(found.apply(mixed), probs, atol=0.05)
    diagonal = fit("vector", mixed, labels).apply(mixed)
    assert nll(found.apply(mixed), labels) < nll(diagonal, labels) - 0.003


@pytest.mark.parametrize("kind", ["platt", "beta", "venn_abers"])
def test_fresh_images_of_two_classes_come_close_to_the_truth(kind: Kind) -> None:
    distortion = Platt(column=1, a=2, b=-1.5)
    _near_the_truth(kind, distortion, n_classes=2)


@pytest.mark.parametrize("kind", ["vector", "structured"])
def test_fresh_images_of_more_classes_come_close_to_the_truth(kind: Kind) -> None:
    distortion = Vector(scale=(2, 1.5, 2, 1), bias=(1, 0, -1, 0.5))
    _near_the_truth(kind, distortion, n_classes=4)


def _near_the_truth(kind: Kind, distortion: Calibrator, *, n_classes: int) -> None:
    """At least nine tenths of what the distortion cost on images the fit has not seen is won."""
    held_back, their_labels = honest(n_classes=n_classes)
    fresh, labels = honest(n_classes=n_classes, seed=1)
    calibrator = fit(kind, distortion.apply(held_back), their_labels)
    distorted = distortion.apply(fresh)
    loss, truth = nll(distorted, labels), nll(fresh, labels)
    assert loss - truth > 0.03
    assert nll(calibrator.apply(distorted), labels) < truth + 0.1 * (loss - truth)


@pytest.mark.parametrize(("kinds", "n_classes"), [(OF_TWO, 2), (OF_MORE, 4)])
def test_no_fit_makes_the_loss_of_its_own_images_worse(kinds: list[Kind], n_classes: int) -> None:
    probs, labels = honest(300, n_classes=n_classes)
    sharp = Temperature(temperature=0.3).apply(probs)
    for kind in kinds:
        calibrated = fit(kind, sharp, labels).apply(sharp)
        assert nll(calibrated, labels) <= nll(sharp, labels), kind


@pytest.mark.parametrize(("kinds", "n_classes"), [(OF_TWO[1:], 2), (OF_MORE[1:], 3)])
def test_images_told_apart_perfectly_are_not_made_certain(
    kinds: list[Kind], n_classes: int
) -> None:
    labels = np.arange(30, dtype=np.int64) % n_classes
    probs = np.eye(n_classes)[labels] * 0.7 + 0.3 / n_classes
    for kind in kinds:
        top = fit(kind, probs, labels).apply(probs).max()
        assert 0.9 < top < 0.995, kind


@pytest.mark.parametrize(("kinds", "n_classes"), [(OF_TWO, 2), (OF_MORE, 3)])
def test_probabilities_of_exactly_0_and_1_are_taken(kinds: list[Kind], n_classes: int) -> None:
    labels = np.arange(60, dtype=np.int64) % n_classes
    probs = np.eye(n_classes)[labels]
    probs[:6] = np.roll(probs[:6], 1, axis=1)  # certain, and wrong
    for kind in kinds:
        calibrated = fit(kind, probs, labels).apply(probs)
        assert np.isfinite(calibrated).all()
        np.testing.assert_allclose(calibrated.sum(axis=1), 1, atol=1e-12)
        assert kind == "identity" or nll(calibrated, labels) < 0.6, kind


def test_a_ranking_that_is_upside_down_becomes_none() -> None:
    probs, labels = honest(500)
    for kind in ("platt", "beta"):
        calibrated = fit(kind, probs[:, ::-1], labels).apply(probs[:, ::-1])
        np.testing.assert_allclose(calibrated[:, 1], labels.mean(), atol=0.01)


def test_no_scale_turns_a_class_upside_down() -> None:
    probs, labels = honest(500, n_classes=3)
    upside_down = 1 / probs / (1 / probs).sum(axis=1, keepdims=True)
    found = fit("vector", upside_down, labels)
    assert isinstance(found, Vector)
    np.testing.assert_allclose(found.scale, 0, atol=1e-3)


@pytest.mark.parametrize("kind", ["vector", "structured"])
def test_of_a_class_without_an_image_nothing_is_learnt(kind: Kind) -> None:
    probs, labels = honest(3000, n_classes=4)
    seen = labels != 2
    sharp = Vector(scale=(2, 2, 2, 2), bias=(1, 0, 0, 0)).apply(probs[seen])
    temperature = fit_temperature(sharp, labels[seen]).temperature
    found = fit(kind, sharp, labels[seen])
    assert isinstance(found, Vector | Structured)
    matrix = np.diag(found.scale) if isinstance(found, Vector) else np.array(found.matrix)
    assert found.bias[2] == 0
    np.testing.assert_allclose(matrix[2], np.eye(4)[2] / temperature)
    assert nll(found.apply(sharp), labels[seen]) < nll(sharp, labels[seen]) - 0.1


def test_labels_of_one_class_only_leave_a_part_finite() -> None:
    probs, _ = honest(40)
    for kind in OF_TWO[2:]:
        calibrated = fit_part(kind, probs, np.zeros(40, np.int64), column=1).apply(probs)
        assert (calibrated[:, 1] < 0.5).all(), kind
        assert (calibrated[:, 1] > 0).all(), kind


@pytest.mark.parametrize(
    ("n", "label", "column", "rule"),
    [
        (0, 0, 1, r"no image in the calibration slice; raise splits\.calibration"),
        (7, 0, 1, r"no positives in the calibration slice: none of its 7 images .* raise splits\."),
        (7, 1, 1, r"no negatives in the calibration slice: none of its 7 images .* raise splits\."),
        (7, 1, 0, r"no positives in the calibration slice"),
    ],
)
def test_images_nothing_can_be_fitted_to_are_refused(
    n: int, label: int, column: int, rule: str
) -> None:
    with pytest.raises(StudyError, match=rule):
        fit("temperature", np.full((n, 2), 0.5), np.full(n, label, np.int64), column=column)


def test_nan_is_refused_with_its_row() -> None:
    probs, labels = honest(10)
    probs[[4, 7]] = np.nan
    with pytest.raises(
        StudyError, match=r"for 2 of 10 images of the calibration slice, first in row 4"
    ):
        fit("platt", probs, labels)


def test_calibrators_of_two_classes_are_not_fitted_to_three() -> None:
    probs, labels = honest(10, n_classes=3)
    with pytest.raises(ValueError, match=r"must be \(n_images, 2\)"):
        fit("beta", probs, labels)
