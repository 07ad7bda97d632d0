"""The pool is the weighted mean, of probabilities or of logits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ensemble.pool import pool_logits, pool_probs

RIGHT = np.array([[0.9, 0.1], [0.2, 0.8]])
WRONG = RIGHT[:, ::-1]


def test_the_mean_of_two() -> None:
    pooled = pool_probs(np.stack([RIGHT, WRONG]), np.array([0.75, 0.25]))
    np.testing.assert_allclose(pooled, [[0.7, 0.3], [0.35, 0.65]])


def test_one_member_is_itself() -> None:
    np.testing.assert_array_equal(pool_probs(RIGHT[None], np.array([1.0])), RIGHT)


@given(hnp.arrays(np.float64, (3, 5, 4), elements=st.floats(0.01, 1)))
def test_rows_go_on_summing_to_one(raw: np.ndarray) -> None:
    probs = raw / raw.sum(axis=2, keepdims=True)
    pooled = pool_probs(probs, np.array([0.5, 0.3, 0.2]))
    np.testing.assert_allclose(pooled.sum(axis=1), 1)
    assert (pooled <= probs.max(axis=0) + 1e-12).all()
    assert (pooled >= probs.min(axis=0) - 1e-12).all()


def test_logits_are_pooled_as_a_geometric_mean() -> None:
    pooled = pool_logits(np.array([[[0.8, 0.2]], [[0.5, 0.5]]]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(pooled, [[2 / 3, 1 / 3]])


def test_one_member_is_itself_in_logits_too() -> None:
    np.testing.assert_allclose(pool_logits(RIGHT[None], np.array([1.0])), RIGHT)


def test_a_probability_of_zero_does_not_decide_for_all_members() -> None:
    members = np.array([[[1.0, 0.0]], [[0.1, 0.9]]])
    pooled = pool_logits(members, np.array([0.5, 0.5]))
    odds = np.sqrt(0.1 / (1e-7 * 0.9))
    np.testing.assert_allclose(pooled, [[odds / (1 + odds), 1 / (1 + odds)]])


@given(hnp.arrays(np.float64, (3, 5, 4), elements=st.floats(0.01, 1)))
def test_pooled_logits_are_the_weighted_mean_of_logits(raw: np.ndarray) -> None:
    probs, weights = raw / raw.sum(axis=2, keepdims=True), np.array([0.5, 0.3, 0.2])
    pooled = pool_logits(probs, weights)
    np.testing.assert_allclose(pooled.sum(axis=1), 1)
    logits = np.log(probs[..., 1:] / probs[..., :1])
    expected = (weights[:, None, None] * logits).sum(axis=0)
    np.testing.assert_allclose(np.log(pooled[:, 1:] / pooled[:, :1]), expected, atol=1e-9)
