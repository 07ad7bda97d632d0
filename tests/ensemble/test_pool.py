"""The pool is the weighted mean."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ensemble.pool import pool_probs

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
