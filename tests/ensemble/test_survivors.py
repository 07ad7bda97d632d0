"""Members that are left decide as an ensemble of their own would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensemble.calibration.calibrators import Temperature
from ensemble.decision.fit import Decided, fit_decision
from ensemble.decision.points import PointConfig
from ensemble.survivors import fit_survivors, pool_subset, surviving_subsets

Floats = NDArray[np.float64]
NAMES = ["a", "b", "c"]
WEIGHTS = np.array([0.5, 0.3, 0.2])


def member_probs(*positive: list[float]) -> Floats:
    given = np.array(positive)
    return np.stack([1 - given, given], axis=2)


def test_of_three_members_all_subsets_are_served_the_largest_first() -> None:
    assert surviving_subsets(3) == [(0, 1), (0, 2), (1, 2), (0,), (1,), (2,)]


def test_five_members_have_thirty_subsets_and_one_has_none() -> None:
    assert len(surviving_subsets(5)) == 30
    assert surviving_subsets(1) == []


def test_of_many_members_at_most_two_may_be_lost_or_one_be_left() -> None:
    subsets = surviving_subsets(8)
    assert len(subsets) == 8 + 28 + 8
    assert {len(subset) for subset in subsets} == {7, 6, 1}


def test_a_cascades_prefixes_are_added_once_and_in_order() -> None:
    subsets = surviving_subsets(8, prefixes=[(5,), (5, 2), (5, 2, 7)])
    assert len(subsets) == 8 + 28 + 8 + 2
    assert subsets[36:39] == [(2, 5, 7), (2, 5), (0,)]
    assert surviving_subsets(3, prefixes=[(2, 0)]) == surviving_subsets(3)


@given(st.integers(1, 9))
def test_subsets_are_proper_and_different(n_members: int) -> None:
    subsets = surviving_subsets(n_members)
    assert len(set(subsets)) == len(subsets)
    assert all(0 < len(subset) < n_members for subset in subsets)
    assert all(list(subset) == sorted(set(subset)) for subset in subsets)


def test_weights_of_those_left_are_renormalised() -> None:
    probs = member_probs([0.8], [0.4], [0.1])
    pooled = pool_subset(probs, WEIGHTS, (0, 2))
    np.testing.assert_allclose(pooled, [[0.4, 0.6]])  # (5 * 0.8 + 2 * 0.1) / 7


def test_each_subset_is_fitted_on_its_own_pool() -> None:
    probs = member_probs([0.8, 0.2], [0.4, 0.6], [0.1, 0.9])
    seen: list[Floats] = []

    def fit(pooled: Floats) -> Decided:
        seen.append(pooled)
        return Decided(Temperature(temperature=len(seen)), [], [], pooled)

    subsets = [(1, 2), (0,)]
    found = fit_survivors(probs, WEIGHTS, NAMES, fit=fit, subsets=subsets)
    assert [s.members for s in found] == [["b", "c"], ["a"]]
    assert [s.calibrator for s in found] == [Temperature(temperature=1), Temperature(temperature=2)]
    np.testing.assert_allclose(seen[0][:, 1], [0.28, 0.72])  # (3 * 0.4 + 2 * 0.1) / 5
    np.testing.assert_allclose(seen[1][:, 1], [0.8, 0.2])


def test_survivors_get_operating_points_of_the_same_names() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    logits = 3 * (labels - 0.5) + rng.normal(0, 1, (3, 120))
    probs = member_probs(*(1 / (1 + np.exp(-logits))).tolist())
    points = {"safe": PointConfig(sensitivity=0.9), "fixed": PointConfig(threshold=0.5)}

    def fit(pooled: Floats) -> Decided:
        return fit_decision(pooled, labels, np.arange(120), positive=1, points=points)

    alone, pair = fit_survivors(probs, WEIGHTS, NAMES, fit=fit, subsets=[(0,), (0, 1)])
    assert [p.name for p in alone.operating_points] == ["safe", "fixed"]
    assert [p.name for p in pair.operating_points] == ["safe", "fixed"]
    assert alone.operating_points[0].threshold != pair.operating_points[0].threshold
    again = fit(probs[0])
    assert again.operating_points == alone.operating_points
    assert again.calibrator == alone.calibrator
    np.testing.assert_allclose(again.calibrated, alone.calibrator.apply(probs[0]))


def test_a_member_alone_is_pooled_as_it_is() -> None:
    probs = member_probs([0.8, 0.3], [0.4, 0.4])
    assert pool_subset(probs, np.array([0.9, 0.1]), [1]) == pytest.approx(probs[1])
