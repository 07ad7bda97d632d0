"""The four ways of choosing members."""

import numpy as np
import pytest

from ensemble.selection.choices import choose
from ensemble.selection.greedy import Costs, bagged_from
from ensemble.selection.results import CHOICES, Budget, Choice
from ensemble.selection.sharpness import tempered_label_probs
from search.errors import StudyError
from tests.ensemble.selection.simulated import same_costs, simulated, softmax

BUDGET = Budget(members=3)
WITHIN_BUDGET: tuple[Choice, ...] = ("best single", "uniform top-k", "greedy")
LABELS = np.array([0, 0, 1, 1])
RIGHT = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])
WRONG = RIGHT[::-1]


def test_the_best_single_is_the_candidate_with_the_least_log_loss() -> None:
    probs, labels = simulated([1.0, 3.0, 2.0])
    weights = choose("best single", probs, labels, costs=None, budget=BUDGET)
    assert weights.tolist() == [0, 1, 0]


def test_the_best_single_is_one_that_fits_the_budget() -> None:
    probs, labels = simulated([1.0, 3.0, 2.0])
    costs = Costs(np.array([1.0, 9.0, 2.0]), np.ones(3))
    weights = choose("best single", probs, labels, costs=costs, budget=Budget(params_m=4))
    assert weights.tolist() == [0, 0, 1]


def test_the_top_are_as_many_as_give_the_least_log_loss() -> None:
    probs, labels = simulated([1.0, 0.0, 1.0, 1.0, 0.0], n_images=2000)
    weights = choose("uniform top-k", probs, labels, costs=None, budget=Budget())
    np.testing.assert_allclose(weights, [1 / 3, 0, 1 / 3, 1 / 3, 0])


def test_the_top_are_no_more_than_the_budget_allows() -> None:
    probs, labels = simulated([2.0, 2.1, 2.2, 2.3])
    weights = choose("uniform top-k", probs, labels, costs=None, budget=Budget(members=2))
    np.testing.assert_allclose(np.sort(weights), [0, 0, 0.5, 0.5])


def test_the_top_pass_over_a_candidate_that_no_longer_fits() -> None:
    probs, labels = simulated([1.0, 0.9, 0.8], n_images=2000)
    costs = Costs(np.array([3.0, 5.0, 3.0]), np.ones(3))
    weights = choose("uniform top-k", probs, labels, costs=costs, budget=Budget(params_m=6))
    assert weights.tolist() == [0.5, 0, 0.5]


def test_a_copy_of_the_best_is_no_reason_for_a_second_member() -> None:
    probs = np.stack([WRONG, RIGHT, RIGHT])
    for choice in WITHIN_BUDGET:
        weights = choose(choice, probs, LABELS, costs=None, budget=BUDGET)
        assert weights.tolist() == [0, 1, 0]


@pytest.mark.parametrize("seed", range(8))
def test_rounding_is_no_reason_for_a_further_member(seed: int) -> None:
    probs, labels = simulated([1.0], seed=seed)
    copies = np.repeat(probs, 5, axis=0)
    weights = choose("uniform top-k", copies, labels, costs=None, budget=Budget())
    assert weights.tolist() == [1, 0, 0, 0, 0]


def test_all_are_all_whatever_the_budget() -> None:
    probs, labels = simulated([2.0, 0.0, 1.0, 1.0])
    weights = choose("all", probs, labels, costs=same_costs(4), budget=Budget(members=1))
    assert weights.tolist() == [0.25] * 4


def test_greedy_is_the_bagged_one_of_tempered_candidates() -> None:
    probs, labels = simulated([2.0 + 0.01 * i for i in range(24)])
    weights = choose("greedy", probs, labels, costs=None, budget=BUDGET, seed=7)
    alone = np.stack([tempered_label_probs(one, labels) for one in probs])
    assert weights.tolist() == bagged_from(alone, budget=BUDGET, seed=7).tolist()


def test_one_that_knows_nothing_gets_no_weight_for_softening_one_too_sure() -> None:
    probs, labels = simulated([1.0], seed=4)
    too_sure = softmax(np.log(probs[0]) * 10)
    knows_nothing = np.full_like(too_sure, 1 / 3)
    both = np.stack([too_sure, knows_nothing])
    softened = both.mean(axis=0)[np.arange(300), labels]
    assert -np.log(softened).mean() < -np.log(too_sure[np.arange(300), labels] + 1e-7).mean()
    assert choose("greedy", both, labels, costs=None, budget=BUDGET).tolist() == [1, 0]


@pytest.mark.parametrize("choice", CHOICES)
def test_weights_sum_to_one(choice: Choice) -> None:
    probs, labels = simulated([2.0, 0.0, 1.0, 1.0])
    weights = choose(choice, probs, labels, costs=None, budget=BUDGET)
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("choice", WITHIN_BUDGET)
def test_where_no_candidate_fits_the_budget_it_is_said(choice: Choice) -> None:
    probs, labels = simulated([2.0, 1.0])
    with pytest.raises(StudyError, match=r"none of 2 candidates fits the budget"):
        choose(choice, probs, labels, costs=same_costs(2), budget=Budget(latency_ms=1))
