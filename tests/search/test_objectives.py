"""What a study optimises is found where a trial reports it, and goes the right way."""

import math
from typing import get_args

import numpy as np
import pytest

from search.config import POLICY_OF, PolicyConfig
from search.objectives import COSTS, Metric, minimised, value_of
from search.training.metrics import evaluate_probs

RIGHT = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
HALF = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.1, 0.9]])
LABELS = np.array([0, 0, 1, 1])
POLICIES = {
    "sensitivity": PolicyConfig(sensitivity=0.95),
    "cost_ratio": PolicyConfig(cost_ratio=5),
}


@pytest.mark.parametrize("objective", get_args(Metric))
def test_better_probabilities_have_the_better_value_of_every_metric(objective: str) -> None:
    policy = POLICIES[POLICY_OF.get(objective, "sensitivity")]
    right, half = (
        value_of(objective, evaluate_probs(probs, LABELS, positive=1, policy=policy))
        for probs in (RIGHT, HALF)
    )
    assert right < half if minimised(objective) else right > half


def test_costs_are_minimised_and_go_by_their_own_name() -> None:
    assert all(minimised(cost) for cost in COSTS)
    assert value_of("params_m", {"params_m": 2.5, "nll": 0.1}) == 2.5


def test_an_objective_at_the_operating_point_is_read_from_there() -> None:
    reported = {"specificity": 0.1, "specificity_at_threshold": 0.7, "cost_at_threshold": 0.2}
    assert value_of("specificity_at_sensitivity", reported) == 0.7
    assert value_of("cost", reported) == 0.2


@pytest.mark.parametrize("metrics", [{}, {"nll": None}, {"nll": math.nan}])
def test_what_is_not_there_is_nan(metrics: dict[str, float | None]) -> None:
    assert math.isnan(value_of("nll", metrics))
