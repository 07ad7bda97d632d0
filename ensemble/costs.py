"""What candidates would cost as members: parameters, and measured latency."""

import numpy as np

from ensemble.candidates import Candidates, load_classifier
from ensemble.config import EnsembleConfig
from ensemble.selection.greedy import Costs
from search.config import ExperimentConfig
from search.study.records import TrialRecord
from search.training.costs import measure_costs


def measured_costs(
    config: ExperimentConfig, ensemble: EnsembleConfig, candidates: Candidates
) -> Costs | None:
    """Of each candidate with all its networks; None where no budget asks for them.

    A candidate whose trial was measured in the search keeps those numbers; any other is measured
    here, on one thread of this machine.
    """
    if ensemble.budget.params_m is None and ensemble.budget.latency_ms is None:
        return None
    each = [_of(config, record) for record in candidates.records]
    networks = [1 if ensemble.refit else len(folds) for folds in candidates.networks]
    counted = list(zip(each, networks, strict=True))
    return Costs(
        params_m=np.array([costs["params_m"] * n for costs, n in counted]),
        latency_ms=np.array([costs["latency_ms"] * n for costs, n in counted]),
    )


def _of(config: ExperimentConfig, record: TrialRecord) -> dict[str, float]:
    if {"params_m", "latency_ms"} <= record.costs.keys():
        return record.costs
    return measure_costs(load_classifier(config, record), record.params)
