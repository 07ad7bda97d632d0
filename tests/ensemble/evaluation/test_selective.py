"""AURC, AUGRC and the risk-coverage curve against numbers worked out by hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ensemble.evaluation.ladder import Ladder
from ensemble.evaluation.selective import risk_areas, risk_coverage

# From the most confident down: right, wrong, right, wrong.
PROBS = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
LABELS = np.array([0, 1, 1, 1])


def areas(confidence: NDArray[np.float64], wrong: NDArray[np.bool_]) -> tuple[float, float]:
    found = risk_areas(Ladder(confidence, wrong), np.ones((len(wrong), 1)))
    return float(found["aurc"][0]), float(found["augrc"][0])


def test_four_decisions_give_the_areas_worked_out_by_hand() -> None:
    aurc, augrc = areas(PROBS.max(axis=1), np.array([False, True, False, True]))
    assert aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    # Wrong decisions over coverage run 0, 0, 1, 1, 2 quarters, a quarter apart.
    assert augrc == pytest.approx((0 + 0.5 + 1 + 1.5) / 16)


def test_no_wrong_decision_is_no_risk_and_only_wrong_ones_are_all_risk() -> None:
    confidence = np.array([0.9, 0.8, 0.8])
    assert areas(confidence, np.zeros(3, np.bool_)) == (0.0, 0.0)
    assert areas(confidence, np.ones(3, np.bool_)) == pytest.approx((1.0, 0.5))


def test_equal_confidences_give_the_mean_over_all_their_orders() -> None:
    confidence = np.array([0.9, 0.7, 0.7, 0.7, 0.5])
    wrong = np.array([True, False, True, False, False])
    orders = [
        areas(np.array([5.0, *order, 1.0]), wrong) for order in itertools.permutations((4, 3, 2))
    ]
    assert areas(confidence, wrong) == pytest.approx(tuple(np.mean(orders, axis=0)))


@settings(deadline=None)
@given(
    hnp.arrays(np.int64, 12, elements=st.integers(1, 6)),
    hnp.arrays(np.bool_, 10),
)
def test_augrc_is_the_papers_function_of_accuracy_and_the_auroc_of_failures(
    confidence: NDArray[np.int64], wrong: NDArray[np.bool_]
) -> None:
    wrong = np.append(wrong, [True, False])
    accuracy = 1 - wrong.mean()
    auroc = roc_auc_score(~wrong, confidence)
    expected = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert areas(confidence.astype(np.float64), wrong)[1] == pytest.approx(expected)


def test_the_curve_of_four_decisions() -> None:
    curve = risk_coverage(PROBS, LABELS)
    assert curve.coverage == [0.25, 0.5, 0.75, 1.0]
    assert curve.risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])


def test_within_equal_confidences_the_curve_goes_straight() -> None:
    probs = np.array([[0.8, 0.2], [0.8, 0.2]])
    assert risk_coverage(probs, np.array([0, 1])).risk == [0.5, 0.5]


def test_the_curve_has_at_most_200_points_and_ends_with_all_images() -> None:
    rng = np.random.default_rng(0)
    score = rng.uniform(size=1003)
    labels = rng.integers(0, 2, 1003)
    probs = np.stack([1 - score, score], axis=1)
    curve = risk_coverage(probs, labels)
    assert len(curve.coverage) == len(curve.risk) == 200
    assert curve.coverage[-1] == 1
    assert curve.risk[-1] == pytest.approx(np.mean(probs.argmax(axis=1) != labels))
