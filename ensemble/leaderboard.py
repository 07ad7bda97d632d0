"""Who does how well on the sealed test: the ensemble, the best single trial, every recipe."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ensemble.calibrate import fit_temperature
from ensemble.candidates import Candidates, calibration_images, candidate_probs
from ensemble.config import EnsembleConfig
from ensemble.evaluate import Evaluation, apply_point
from ensemble.operating import choose_operating_point
from search.atomic import finite
from search.config import ExperimentConfig
from search.study.records import StudyFolder, TrialRecord
from search.training.metrics import evaluate_probs

SHOWN = ("auroc", "auprc", "nll", "brier", "ece", "balanced_accuracy")
Probs = NDArray[np.floating]


def make_leaderboard(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    candidates: Candidates,
    evaluation: Evaluation,
    test: pd.DataFrame,
) -> list[dict[str, Any]]:
    """Everyone on the same sealed images, each at the threshold its calibration slice chose.

    Recipes stand as such systems are used, without calibration, and with as many epochs as ASHA
    let them have; the best single trial with and without calibration. Sensitivity and
    specificity are at the first operating point.

    Args:
        evaluation: of the ensemble on the test.
        test: the sealed images.
    """
    calibration = calibration_images(StudyFolder(config.study_folder))
    labels = calibration["label"].to_numpy(np.int64), test["label"].to_numpy(np.int64)
    point = next(iter(evaluation.operating_points), {})
    rows = [_row("ensemble", "all members", evaluation.metrics, point)]

    def add(who: str, record: TrialRecord, before: Probs, after: Probs) -> None:
        metrics = evaluate_probs(after, labels[1], positive=evaluation.positive)
        reached = _reached(ensemble, evaluation.positive, before, after, labels)
        epochs = f"{len(record.epochs)} of {config.fidelity.max_epochs} epochs"
        what = f"trial {record.number}, {record.params.backbone}, {epochs}"
        rows.append(_row(who, what, metrics, reached))

    for index, record in enumerate(candidates.records):
        if index > 0 and record.recipe is None:
            continue
        before = candidate_probs(config, record, calibration)
        after = candidate_probs(config, record, test)
        if index == 0:
            temperature = fit_temperature(before, labels[0])
            calibrated = temperature.apply(before), temperature.apply(after)
            add("best single, calibrated", record, *calibrated)
            add("best single", record, before, after)
        if record.recipe is not None:
            add(f"recipe {record.recipe}", record, before, after)
    for record in StudyFolder(config.study_folder).records():
        if record.recipe is not None and record.status == "failed" and not record.again:
            rows.append(_row(f"recipe {record.recipe}", f"failed: {record.error}", {}, {}))
    return rows


def _reached(
    ensemble: EnsembleConfig,
    positive: int | None,
    before: Probs,
    after: Probs,
    labels: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> Mapping[str, Any]:
    """The first operating point, chosen on the calibration slice and applied to the test."""
    if positive is None or not ensemble.operating_points:
        return {}
    name, policy = next(iter(ensemble.operating_points.items()))
    scores = [np.asarray(probs[:, positive], np.float64) for probs in (before, after)]
    point = choose_operating_point(name, policy, scores[0], labels[0] == positive)
    return apply_point(point, scores[1], labels[1] == positive)


def _row(
    who: str, what: str, metrics: Mapping[str, float], point: Mapping[str, Any]
) -> dict[str, Any]:
    numbers = finite({name: metrics.get(name) for name in SHOWN})
    rates = {name: point.get(name) for name in ("sensitivity", "specificity")}
    return {"who": who, "what": what, **numbers, **rates}
