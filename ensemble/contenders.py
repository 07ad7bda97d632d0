"""Those the ensemble is compared with: the best single candidate, calibrated, and every recipe."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ensemble.assemble import Assembled, HeldBack
from ensemble.candidates import Candidates, candidate_probs
from ensemble.config import EnsembleConfig
from ensemble.decision.choose import choose_points
from ensemble.decision.fit import fit_decision
from ensemble.evaluation.leaderboard import Contender
from search.config import ExperimentConfig
from search.study.records import StudyFolder, TrialRecord

BEST_SINGLE = "best single, calibrated"
Probs = NDArray[np.float64]


def find_contenders(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    candidates: Candidates,
    assembled: Assembled,
    test: pd.DataFrame,
    member_probs: NDArray[np.float32],
) -> list[Contender]:
    """Everyone on the same sealed images, each at the threshold its held-back images chose.

    The best single candidate has all that the ensemble has: its fold networks or the refitted
    one, test-time augmentation, its own calibrator. Where it is no member, its networks see one
    view. Recipes stand as such systems are used: one network, uncalibrated, with as many epochs
    as ASHA let them have.

    Args:
        test: the sealed images that can be read.
        member_probs: of these, (n_members, n_images, n_classes).
    """
    held_back, positive = assembled.held_back, None
    if assembled.manifest.positive is not None:
        positive = assembled.manifest.classes.index(assembled.manifest.positive)
    best = candidates.records[0]
    probs = _best_probs(config, candidates, assembled, test, member_probs)
    decided = fit_decision(
        probs[0],
        held_back.labels,
        held_back.groups,
        positive=positive,
        points=ensemble.operating_points,
        certifies=held_back.certifies,
        seed=config.seed,
    )
    first = next(iter(decided.operating_points), None)
    found = [
        Contender(
            BEST_SINGLE,
            _what(best),
            _epochs(config, best),
            decided.calibrator.apply(probs[1]),
            first,
        )
    ]
    study = StudyFolder(config.study_folder)
    for record in study.records():
        if record.recipe is not None and study.has_weights(record.number):
            found.append(_recipe(config, ensemble, record, held_back, test, positive))
    return found


def _best_probs(
    config: ExperimentConfig,
    candidates: Candidates,
    assembled: Assembled,
    test: pd.DataFrame,
    member_probs: NDArray[np.float32],
) -> list[Probs]:
    """Of the held-back and of the test images, (n_images, n_classes) each."""
    best, held_back = candidates.records[0], assembled.held_back
    members = [member.trial for member in assembled.manifest.members]
    if best.number in members:
        i = members.index(best.number)
        found = [held_back.scored.scores.member_probs[i], member_probs[i]]
    else:
        found = [
            candidate_probs(config, best, images, folds=candidates.networks[0])
            for images in (held_back.images, test)
        ]
    return [np.asarray(probs, np.float64) for probs in found]


def _recipe(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    record: TrialRecord,
    held_back: HeldBack,
    test: pd.DataFrame,
    positive: int | None,
) -> Contender:
    before, after = (
        np.asarray(candidate_probs(config, record, images, folds=[0]), np.float64)
        for images in (held_back.images, test)
    )
    point = None
    if positive is not None and ensemble.operating_points:
        name, asked = next(iter(ensemble.operating_points.items()))
        rows = held_back.certifying
        chosen = choose_points(
            {name: asked},
            before[rows, positive],
            held_back.labels[rows] == positive,
            held_back.groups[rows],
            seed=config.seed,
        )
        point = chosen[0]
    return Contender(
        f"recipe {record.recipe}", _what(record), _epochs(config, record), after, point
    )


def _what(record: TrialRecord) -> str:
    return f"trial {record.number}, {record.params.backbone}"


def _epochs(config: ExperimentConfig, record: TrialRecord) -> str:
    return f"{len(record.epochs)} of {config.fidelity.max_epochs}"
