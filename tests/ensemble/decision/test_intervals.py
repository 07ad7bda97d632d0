"""Exact intervals: the bounds are where the binomial tails say they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from ensemble.decision.intervals import clopper_pearson, hits_needed


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (72, 72), (57, 60)])
def test_the_interval_is_scipys_exact_one(hits: int, n: int) -> None:
    expected = binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(hits, n) == pytest.approx((expected.low, expected.high))


def test_nothing_counted_says_nothing() -> None:
    assert clopper_pearson(0, 0) == (0, 1)


def test_seventy_two_positives_without_a_miss_prove_95_percent() -> None:
    assert clopper_pearson(72, 72)[0] > 0.95 > clopper_pearson(71, 71)[0]
    assert hits_needed(0.95, 0.95) == 72


@pytest.mark.parametrize(("n", "misses"), [(72, 0), (110, 1), (142, 2), (173, 3), (202, 4)])
def test_every_miss_has_its_price_in_positives(n: int, misses: int) -> None:
    assert clopper_pearson(n - misses, n)[0] >= 0.95
    assert clopper_pearson(n - 1 - misses, n - 1)[0] < 0.95


@given(st.integers(1, 200), st.data(), st.floats(0.55, 0.99))
def test_the_tails_beyond_the_bounds_are_equal(
    n: int, data: st.DataObject, confidence: float
) -> None:
    hits = data.draw(st.integers(0, n))
    low, high = clopper_pearson(hits, n, confidence=confidence)
    tail = (1 - confidence) / 2
    assert low <= hits / n <= high
    if hits:
        assert binom.sf(hits - 1, n, low) == pytest.approx(tail)
    if hits < n:
        assert binom.cdf(hits, n, high) == pytest.approx(tail)


def test_it_covers_at_least_at_its_rate() -> None:
    n, truth = 60, 0.93
    chances = binom.pmf(np.arange(n + 1), n, truth)
    covered = [low <= truth <= high for low, high in (clopper_pearson(k, n) for k in range(n + 1))]
    assert chances[covered].sum() >= 0.95


@given(st.floats(0.5, 0.995), st.floats(0.6, 0.99))
def test_the_cases_needed_are_the_fewest_that_do(rate: float, confidence: float) -> None:
    n = hits_needed(rate, confidence)
    assert clopper_pearson(n, n, confidence=confidence)[0] >= rate - 1e-9
    if n > 1:
        assert clopper_pearson(n - 1, n - 1, confidence=confidence)[0] < rate + 1e-9
