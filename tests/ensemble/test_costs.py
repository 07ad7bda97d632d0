"""Budgets go by what candidates cost, measured here where the search did not."""

from pathlib import Path

from ensemble.candidates import load_candidates, load_classifier
from ensemble.config import EnsembleConfig
from ensemble.costs import measured_costs
from ensemble.selection.results import Budget
from search.config import ExperimentConfig
from search.study.records import StudyFolder
from tests.ensemble.studies import copy_study


def test_without_a_budget_nothing_is_measured(study: ExperimentConfig) -> None:
    candidates = load_candidates(StudyFolder(study.study_folder))
    assert measured_costs(study, EnsembleConfig(), candidates) is None


def test_a_candidate_that_the_search_did_not_measure_is_measured(
    study: ExperimentConfig, tmp_path: Path
) -> None:
    config = copy_study(study, tmp_path)
    folder = StudyFolder(config.study_folder)
    folder.write_record(folder.record(1).model_copy(update={"costs": {}}))
    candidates = load_candidates(folder)
    ensemble = EnsembleConfig(budget=Budget(params_m=5))
    costs = measured_costs(config, ensemble, candidates)
    assert costs is not None
    index = [record.number for record in candidates.records].index(1)
    network = load_classifier(config, candidates.records[index])
    n_params = sum(p.numel() for p in network.parameters())
    assert costs.params_m[index] == 3 * n_params / 1e6
    assert costs.latency_ms[index] > 0
    refit = measured_costs(config, ensemble.model_copy(update={"refit": True}), candidates)
    assert refit is not None
    assert refit.params_m[index] == n_params / 1e6
