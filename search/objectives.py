"""What a study optimises, and which way is better."""

from collections.abc import Mapping
from typing import Literal, get_args

# Of a trial's probabilities on its validation fold.
Metric = Literal[
    "nll",
    "brier",
    "auroc",
    "auprc",
    "balanced_accuracy",
    "partial_auroc",
    "specificity_at_sensitivity",
    "cost",
]
Cost = Literal["params_m", "latency_ms"]  # of its classifier, known before it trains
Objective = Metric | Cost
Limited = Literal["params_m", "latency_ms", "ece"]  # what a constraint may bound from above

COSTS: tuple[str, ...] = get_args(Cost)
# At the operating point that the policy chooses; the others go by their own name.
REPORTED_AS = {
    "specificity_at_sensitivity": "specificity_at_threshold",
    "cost": "cost_at_threshold",
}
LOWER_IS_BETTER = frozenset({"nll", "brier", "ece", "cost", *COSTS})  # all others: higher


def minimised(objective: str) -> bool:
    """Whether less of it is better."""
    return objective in LOWER_IS_BETTER


def value_of(objective: str, metrics: Mapping[str, float | None]) -> float:
    """An objective's value among an epoch's metrics, or a trial's costs; NaN if it is not there."""
    found = metrics.get(REPORTED_AS.get(objective, objective))
    return float("nan") if found is None else float(found)
