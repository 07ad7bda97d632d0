"""From candidates to a bundle that decides: all that is known before the test is opened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ensemble.bundle import Bundle
from ensemble.calibration.calibrators import Identity
from ensemble.calibration.results import CalibratorWorth
from ensemble.candidates import Candidates, calibration_images
from ensemble.cascade import Panel, build_cascade, first_asked, prefixes
from ensemble.config import EnsembleConfig
from ensemble.decision.choose import one_per_group
from ensemble.decision.fit import Decided, certifying_half, fit_decision
from ensemble.decision.refer import BandOption, refer_front
from ensemble.evaluation.score import Scored, score_images
from ensemble.manifest import Manifest, Member
from ensemble.members import with_latencies, with_views, write_members
from ensemble.oof_views import choose_test_views
from ensemble.outliers import build_novelty
from ensemble.pool import pool_probs
from ensemble.profile import Gauge, build_profile, watched
from ensemble.runtime import Runtime
from ensemble.seen import FILE as SEEN
from ensemble.seen import write_seen
from ensemble.selection.results import Selection
from ensemble.survivors import fit_survivors, surviving_subsets
from ensemble.views import ViewsWorth
from search.config import ExperimentConfig
from search.data.splits import TRAIN
from search.errors import DatasetError
from search.study.records import StudyFolder

Step = Callable[[str], None]
THREADS = 2


@dataclass(frozen=True)
class HeldBack:
    """The calibration slice, which no candidate was trained or chosen on.

    Attributes:
        images: a row an image that could be read.
        scored: what the members say of them.
        certifies: those that thresholds are chosen on, (n_images,); None where all of them are.
        statistics: of the cheapest member's pixels, (n_images,) each.
    """

    images: pd.DataFrame
    scored: Scored
    certifies: NDArray[np.bool_] | None
    statistics: Mapping[str, NDArray[np.float64]]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, (n_images,)."""
        return self.images["label"].to_numpy(np.int64)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Linked images share one, (n_images,)."""
        return self.images["group"].to_numpy(np.int64)

    @property
    def certifying(self) -> NDArray[np.int64]:
        """Row numbers of the images that thresholds are chosen on."""
        return np.flatnonzero(
            np.ones(len(self.images)) if self.certifies is None else self.certifies
        )


@dataclass(frozen=True)
class Assembled:
    """A bundle in its scratch folder, without pages and golden images, and how it came about."""

    manifest: Manifest
    selection: Selection
    held_back: HeldBack
    calibrators: list[CalibratorWorth]
    refer_fronts: dict[str, list[BandOption]]
    views: list[ViewsWorth]


def assemble(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    candidates: Candidates,
    selection: Selection,
    folder: Path,
    *,
    step: Step = lambda _: None,
) -> Assembled:
    """Write the members, then fit on held-back images all that a bundle decides by.

    Raises:
        StudyError: nothing to calibrate on.
        BundleError: a member's ONNX graph is not what torch computes.
    """
    study = StudyFolder(config.study_folder)
    images = calibration_images(study)
    members = write_members(
        config, ensemble, candidates, selection.weights, folder, images=images, step=step
    )
    draft = with_latencies(folder, _draft(study, ensemble, members))
    write_seen(folder, study.open_images()["digest"])
    step("weighing test-time augmentation")
    latency = sum(member.latency_ms for member in draft.members)
    views, worth = choose_test_views(
        config, ensemble, candidates, selection.weights, latency_ms=latency
    )
    draft = with_views(draft, views)
    step(f"asking {len(members)} members about {len(images)} held-back images")
    held_back = _hold_back(config, draft, folder, images)
    step("calibrating, certifying")
    decided, decisions = _decide(config, ensemble, candidates, selection, draft, held_back)
    step("setting and measuring the out-of-distribution threshold")
    novelty = _novelty(config, ensemble, study, draft, held_back, folder)
    manifest = draft.model_copy(update=decisions | novelty)
    fronts = _refer_fronts(config, ensemble, manifest, held_back, decided)
    return Assembled(manifest, selection, held_back, decided.calibrator_worth, fronts, worth)


def _draft(study: StudyFolder, ensemble: EnsembleConfig, members: list[Member]) -> Manifest:
    head = study.head()
    return Manifest(
        name=head.name,
        version=ensemble.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        classes=head.classes,
        positive=head.positive,
        members=members,
        calibrator=Identity(),
        operating_points=[],
        prevalence={},
        seen_file=SEEN,
        provenance={
            "data_digest": head.data_digest,
            "splits_hash": head.splits_hash,
            "n_images": head.n_images,
            "objective": head.objective,
            "seed": head.seed,
            "versions": head.versions,
            "licences": ensemble.licences,
            "refit": ensemble.refit,
        },
        files={},
    )


def _hold_back(
    config: ExperimentConfig, draft: Manifest, folder: Path, images: pd.DataFrame
) -> HeldBack:
    runtime = Runtime(Bundle(folder, draft))
    gauge = Gauge(first_asked(draft.members).preprocessing)
    scored = score_images(runtime, images["path"].tolist(), threads=THREADS, change=gauge)
    if scored.skipped:
        raise DatasetError(
            f"{next(iter(scored.skipped.values()))}; it is one of the study's images: put it back"
        )
    positive = runtime.bundle.positive_index
    certifies = certifying_half(
        images["label"].to_numpy(np.int64),
        images["group"].to_numpy(np.int64),
        positive=positive,
        n_classes=len(draft.classes),
        seed=config.seed,
    )
    return HeldBack(images, scored, certifies, gauge.columns())


def _decide(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    candidates: Candidates,
    selection: Selection,
    draft: Manifest,
    held_back: HeldBack,
) -> tuple[Decided, dict[str, object]]:
    """The whole pool's calibrator and points, those of every subset, the cascade, the profile."""
    positive = None if draft.positive is None else draft.classes.index(draft.positive)
    weights = np.array([member.weight for member in draft.members])
    latencies = np.array([member.latency_ms for member in draft.members])
    names = [member.name for member in draft.members]
    probs = held_back.scored.scores.member_probs
    fit = partial(
        fit_decision,
        labels=held_back.labels,
        groups=held_back.groups,
        positive=positive,
        points=ensemble.operating_points,
        certifies=held_back.certifies,
        seed=config.seed,
    )
    decided = fit(pool_probs(probs, weights))
    subsets = surviving_subsets(len(names), prefixes(weights, latencies))
    survivors = fit_survivors(probs, weights, names, fit=fit, subsets=subsets)
    cascade = None
    if ensemble.cascade is not None and positive is not None and len(names) > 1:
        chosen = [i for i, weight in enumerate(selection.weights) if weight > 0]
        cascade = build_cascade(
            Panel(names, weights, latencies, positive, decided, survivors),
            probs,
            candidates.oof_probs[chosen],
            held_back.groups,
            labels=held_back.labels,
            config=ensemble.cascade,
            certifies=held_back.certifies,
            seed=config.seed,
        )
    fitted = held_back.labels
    if held_back.certifies is not None:
        fitted = fitted[~held_back.certifies]
    shares = np.bincount(fitted, minlength=len(draft.classes)) / len(fitted)
    probabilities = watched(decided.calibrated, positive)
    return decided, {
        "calibrator": decided.calibrator,
        "operating_points": decided.operating_points,
        "survivors": survivors,
        "cascade": cascade,
        "prevalence": dict(zip(draft.classes, shares.tolist(), strict=True)),
        "profile": build_profile(
            held_back.statistics, probabilities, first_asked(draft.members).name
        ),
    }


def _refer_fronts(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    manifest: Manifest,
    held_back: HeldBack,
    decided: Decided,
) -> dict[str, list[BandOption]]:
    """What the refer bands were chosen from, by operating point."""
    asked = {name: p.refer for name, p in ensemble.operating_points.items() if p.refer is not None}
    if manifest.positive is None or not asked:
        return {}
    positive = manifest.classes.index(manifest.positive)
    rows = held_back.certifying
    rows = rows[one_per_group(held_back.groups[rows], seed=config.seed)]
    score, is_positive = decided.calibrated[rows, positive], held_back.labels[rows] == positive
    return {
        name: refer_front(score, is_positive, seed=config.seed, asked=[refer])
        for name, refer in asked.items()
    }


def _novelty(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    study: StudyFolder,
    draft: Manifest,
    held_back: HeldBack,
    folder: Path,
) -> dict[str, object]:
    if ensemble.out_of_distribution is None:
        return {}
    training = study.open_images()
    novelty = build_novelty(
        Runtime(Bundle(folder, draft)),
        training[training["part"] == TRAIN],
        held_back.images["path"].tolist(),
        ensemble.out_of_distribution,
        folder,
        seed=config.seed,
    )
    return {"out_of_distribution": novelty}
