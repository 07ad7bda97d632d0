"""Greedy selection finds the candidates that complete each other, within the budget."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.pool import pool_probs
from ensemble.selection.greedy import Costs, bagged_greedy, fits, greedy, room
from ensemble.selection.results import Budget
from search.errors import StudyError
from search.training.metrics import nll
from tests.benchmarks.plain_selection import plain_greedy
from tests.ensemble.selection.simulated import same_costs, simulated

LABELS = np.array([0, 0, 1, 1])
RIGHT = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])
WRONG = RIGHT[::-1]
FIRST_HALF = np.array([[0.95, 0.05], [0.95, 0.05], [0.45, 0.55], [0.45, 0.55]])
SECOND_HALF = np.array([[0.55, 0.45], [0.55, 0.45], [0.05, 0.95], [0.05, 0.95]])
SIGNALS = [2.0, 1.0, 2.2, 0.0, 1.8, 1.5, 0.0, 2.1, 1.9, 0.5, 1.7, 2.3, 0.0, 1.2]


def test_a_useless_candidate_gets_no_weight() -> None:
    weights, _ = greedy(np.stack([WRONG, RIGHT]), LABELS, rounds=5)
    assert weights.tolist() == [0.0, 1.0]
    bagged = bagged_greedy(np.stack([WRONG, RIGHT]), LABELS, rounds=5)
    assert bagged.tolist() == [0.0, 1.0]


def test_useless_candidates_among_many_get_no_weight() -> None:
    probs, labels = simulated(SIGNALS)
    weights = bagged_greedy(probs, labels)
    assert weights[[3, 6, 12]].tolist() == [0.0, 0.0, 0.0]
    assert weights.sum() == pytest.approx(1)


def test_candidates_that_complete_each_other_are_both_asked() -> None:
    weights, trajectory = greedy(np.stack([FIRST_HALF, WRONG, SECOND_HALF]), LABELS, rounds=6)
    assert weights.tolist() == [0.5, 0.0, 0.5]
    assert trajectory[1] == pytest.approx(-np.log(0.75))


def test_two_candidates_with_independent_errors_both_get_weight() -> None:
    probs, labels = simulated([2.0, 2.0])
    assert (greedy(probs, labels)[0] > 0.3).all()
    assert (bagged_greedy(probs, labels) > 0.3).all()


def test_a_copy_adds_nothing_and_is_left_out() -> None:
    copied = np.stack([RIGHT, WRONG, RIGHT])
    assert greedy(copied, LABELS)[0].tolist() == [1.0, 0.0, 0.0]
    assert bagged_greedy(copied, LABELS).tolist() == [1.0, 0.0, 0.0]


def test_among_many_no_copy_is_given_to_a_bag() -> None:
    probs, labels = simulated(SIGNALS)
    alone = bagged_greedy(probs, labels)
    copied = bagged_greedy(np.concatenate([probs, probs]), labels)
    np.testing.assert_allclose(copied, np.concatenate([alone, np.zeros(len(SIGNALS))]))


def test_the_path_counts_up_to_its_best_round() -> None:
    probs, labels = simulated([2.0, 1.9, 1.8], n_images=60)
    weights, trajectory = greedy(probs, labels, rounds=9)
    assert len(trajectory) == 9
    best = int(np.argmin(trajectory)) + 1
    np.testing.assert_allclose(weights * best, np.round(weights * best))
    assert nll(pool_probs(probs, weights), labels) == pytest.approx(min(trajectory))


@pytest.mark.parametrize("seed", range(8))
def test_rounding_does_not_decide_between_equals(seed: int) -> None:
    """The same probabilities in another order of images: equal losses, summed otherwise."""
    rng = np.random.default_rng(seed)
    share = rng.beta(2, 1, 3001)
    shares = np.stack([share, *(rng.permutation(share) for _ in range(30))])
    probs = np.stack([shares, 1 - shares], axis=2)
    weights, _ = greedy(probs, np.zeros(3001, np.int64), rounds=1)
    assert weights[0] == 1


def test_a_gain_too_small_for_single_precision_counts() -> None:
    better = np.array([[0.9, 0.1], [0.8 + 1e-10, 0.2 - 1e-10], [0.2, 0.8], [0.1, 0.9]])
    assert greedy(np.stack([RIGHT, better]), LABELS, rounds=1)[0].tolist() == [0, 1]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_candidates=st.integers(1, 6),
    n_images=st.integers(1, 23),
    decimals=st.sampled_from([1, 3, 12]),
    single=st.booleans(),
)
def test_picks_are_those_of_the_plain_implementation(
    seed: int, n_candidates: int, n_images: int, decimals: int, single: bool
) -> None:
    rng = np.random.default_rng(seed)
    # Few decimals make ties, zeros and copies.
    share = np.round(rng.beta(0.4, 0.4, (n_candidates, n_images)), decimals)
    probs = np.stack([share, 1 - share], axis=2)
    labels = rng.integers(0, 2, n_images)
    if single:
        probs = probs.astype(np.float32).astype(np.float64)
    stored = probs.astype(np.float32) if single else probs
    weights, trajectory = greedy(stored, labels, rounds=12)
    plain_weights, plain_trajectory = plain_greedy(probs, labels, 12)
    np.testing.assert_allclose(trajectory, plain_trajectory, atol=1e-9)
    np.testing.assert_allclose(weights, plain_weights, atol=1e-9)


def test_many_images_are_scored_in_blocks_alike() -> None:
    probs, labels = simulated([2.0, 1.0, 1.9, 1.5, 0.3], n_images=70_001, n_classes=2)
    weights, trajectory = greedy(probs, labels, rounds=4)
    plain_weights, plain_trajectory = plain_greedy(probs, labels, 4)
    np.testing.assert_allclose(trajectory, plain_trajectory)
    np.testing.assert_allclose(weights, plain_weights)


def test_probabilities_of_zero_stay_finite() -> None:
    certain = np.stack([np.eye(2)[1 - LABELS], np.eye(2)[LABELS], np.eye(2)[1 - LABELS]])
    weights, trajectory = greedy(certain, LABELS, rounds=3)
    assert weights.tolist() == [0.0, 1.0, 0.0]
    assert trajectory == [0.0, 0.0, 0.0]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_candidates_changes_nothing_but_the_order(seed: int) -> None:
    probs, labels = simulated(SIGNALS, n_images=100, seed=seed)
    order = np.random.default_rng(seed).permutation(len(SIGNALS))
    budget = Budget(members=4)
    for weigh in (bagged_greedy, lambda *args, **kwargs: greedy(*args, **kwargs)[0]):
        expected = weigh(probs, labels, rounds=8, budget=budget)[order]
        np.testing.assert_allclose(weigh(probs[order], labels, rounds=8, budget=budget), expected)


def test_bags_are_the_same_under_a_seed_and_others_under_another() -> None:
    probs, labels = simulated([2.0 + 0.01 * i for i in range(30)])
    once, again, other = (bagged_greedy(probs, labels, rounds=5, seed=s) for s in (1, 1, 2))
    assert once.tolist() == again.tolist()
    assert once.tolist() != other.tolist()


def test_no_more_members_than_allowed() -> None:
    probs, labels = simulated(SIGNALS)
    for members in (1, 3):
        budget = Budget(members=members)
        assert (greedy(probs, labels, budget=budget)[0] > 0).sum() <= members
        weights = bagged_greedy(probs, labels, budget=budget)
        assert (weights > 0).sum() == members
        assert weights.sum() == pytest.approx(1)


def test_the_heaviest_of_the_bags_members_are_kept() -> None:
    probs, labels = simulated([1.0] * 14, n_images=80)
    free, kept = (bagged_greedy(probs, labels, budget=b) for b in (None, Budget(members=3)))
    heaviest = np.sort(np.argsort(-free, kind="stable")[:3])
    assert np.flatnonzero(kept).tolist() == heaviest.tolist()
    np.testing.assert_allclose(kept[heaviest], free[heaviest] / free[heaviest].sum())
    least = np.sort(np.argsort([nll(p, labels) for p in probs])[:3])
    assert heaviest.tolist() != least.tolist()  # or the test would tell nothing


def test_members_together_keep_the_bounds_on_parameters_and_latency() -> None:
    probs, labels = simulated(SIGNALS)
    costs = Costs(np.linspace(1, 4, len(SIGNALS)), np.linspace(40, 10, len(SIGNALS)))
    budget = Budget(members=None, params_m=6.5, latency_ms=60)
    for weights in (
        greedy(probs, labels, budget=budget, costs=costs)[0],
        bagged_greedy(probs, labels, budget=budget, costs=costs),
    ):
        members = weights > 0
        assert members.sum() >= 2
        assert costs.params_m[members].sum() <= 6.5
        assert costs.latency_ms[members].sum() <= 60


def test_a_sum_of_costs_may_reach_its_bound() -> None:
    costs = Costs(np.array([0.1, 0.2, 0.2]), np.ones(3))
    budget = Budget(params_m=0.3)
    assert room(np.array([True, False, False]), budget, costs).all()
    assert fits(np.array([0.5, 0.5, 0.0]), budget, costs)
    assert not fits(np.array([0.4, 0.3, 0.3]), budget, costs)


def test_a_candidate_beyond_the_budget_alone_is_never_a_member() -> None:
    probs = np.stack([RIGHT, FIRST_HALF, SECOND_HALF])
    costs = Costs(np.array([25.0, 2.0, 2.0]), np.array([1.0, 1.0, np.nan]))
    budget = Budget(params_m=5, latency_ms=10)
    assert greedy(probs, LABELS, budget=budget, costs=costs)[0].tolist() == [0, 1, 0]
    assert bagged_greedy(probs, LABELS, budget=budget, costs=costs).tolist() == [0, 1, 0]


def test_where_no_candidate_fits_the_budget_it_is_said() -> None:
    for weigh in (greedy, bagged_greedy):
        with pytest.raises(
            StudyError, match=r"none of 2 candidates fits the budget \(.*params_m 1"
        ):
            weigh(np.stack([RIGHT, WRONG]), LABELS, budget=Budget(params_m=1), costs=same_costs(2))


def test_a_bound_on_costs_that_are_not_given_is_refused() -> None:
    with pytest.raises(ValueError, match=r"latency_ms needs the candidates' costs"):
        greedy(np.stack([RIGHT, WRONG]), LABELS, budget=Budget(latency_ms=5))
