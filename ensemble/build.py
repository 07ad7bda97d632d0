"""From a study to a bundle: select, pool, calibrate, choose thresholds, evaluate once, write."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ensemble.bundle import MANIFEST, Bundle, Manifest, Member, building, hash_files, load_bundle
from ensemble.calibrate import Temperature, fit_temperature
from ensemble.candidates import (
    Candidates,
    calibration_images,
    candidate_pixels,
    candidate_probs,
    load_candidates,
    load_classifier,
)
from ensemble.card import render_card
from ensemble.config import EnsembleConfig
from ensemble.evaluate import Evaluation, evaluate_bundle
from ensemble.export import export_onnx
from ensemble.golden import write_golden
from ensemble.leaderboard import make_leaderboard
from ensemble.operating import choose_operating_point
from ensemble.pool import pool_probs
from ensemble.report import Curve, write_report
from ensemble.runtime import Runtime
from ensemble.select import select_top
from search.atomic import write_json
from search.config import ExperimentConfig
from search.data.splits import TRAIN
from search.study.identity import refuse_other
from search.study.records import StudyFolder, TrialRecord
from search.study.sealed import count_openings, open_sealed_test
from search.tables import write_tensors
from search.training.backbones import preprocessing_of

Step = Callable[[str], None]


@dataclass(frozen=True)
class Built:
    """A finished bundle and the numbers beside it.

    Attributes:
        leaderboard: a row for the ensemble, the best single trial (as it is, and calibrated) and
            each recipe, all on the sealed test.
    """

    bundle: Bundle
    evaluation: Evaluation
    leaderboard: list[dict[str, Any]]


def build_ensemble(
    config: ExperimentConfig, ensemble: EnsembleConfig, *, step: Step = lambda _: None
) -> Built:
    """Turn a study into one bundle; the sealed test is opened once, at the end.

    Raises:
        StudyError: no study, no candidate, or nothing to calibrate on.
        BundleError: a member's ONNX graph is not what torch computes.
    """
    study = StudyFolder(config.study_folder)
    refuse_other(config, study)
    candidates = load_candidates(study)
    step(f"selecting from {len(candidates.records)} candidates")
    weights = select_top(candidates.oof_probs, candidates.labels, members=ensemble.members)
    chosen = [(r, w) for r, w in zip(candidates.records, weights, strict=True) if w > 0]
    calibration = calibration_images(study)
    step(f"calibrating {len(chosen)} members on {len(calibration)} held-back images")
    member_probs = np.stack([candidate_probs(config, r, calibration) for r, _ in chosen])
    pooled = pool_probs(member_probs, np.array([w for _, w in chosen]))
    labels = calibration["label"].to_numpy(np.int64)
    calibrator = fit_temperature(pooled, labels)
    with building(config.bundle_folder) as scratch:
        step("exporting members")
        pixels_of = calibration.head(8)
        members = [_write_member(config, r, w, pixels_of, scratch) for r, w in chosen]
        manifest = _manifest(ensemble, study, members, calibrator, calibrator.apply(pooled), labels)
        built = _evaluate_and_write(config, ensemble, manifest, candidates, scratch, step)
    bundle = load_bundle(config.bundle_folder)
    return Built(bundle, built[0], built[1])


def _write_member(
    config: ExperimentConfig,
    record: TrialRecord,
    weight: float,
    images: pd.DataFrame,
    folder: Path,
) -> Member:
    classifier = load_classifier(config, record)
    (folder / "members").mkdir(exist_ok=True)
    stem = f"members/{record.params.backbone}_{record.number:05d}"
    write_tensors(folder / f"{stem}.safetensors", classifier.state_dict())
    pixels = candidate_pixels(config, record, images)
    return Member(
        name=stem.removeprefix("members/"),
        trial=record.number,
        recipe=record.recipe,
        params=record.params,
        preprocessing=preprocessing_of(record.params),
        weight=weight,
        weights_file=f"{stem}.safetensors",
        onnx_file=f"{stem}.onnx",
        parity=export_onnx(classifier, folder / f"{stem}.onnx", pixels=pixels),
    )


def _manifest(
    ensemble: EnsembleConfig,
    study: StudyFolder,
    members: list[Member],
    calibrator: Temperature,
    probs: NDArray[np.float64],
    labels: NDArray[np.int64],
) -> Manifest:
    head, images = study.head(), study.open_images()
    points = []
    if head.positive is not None:
        positive = head.classes.index(head.positive)
        points = [
            choose_operating_point(name, policy, probs[:, positive], labels == positive)
            for name, policy in ensemble.operating_points.items()
        ]
    counts = np.bincount(images.loc[images["part"] == TRAIN, "label"], minlength=len(head.classes))
    return Manifest(
        name=head.name,
        version=ensemble.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        classes=head.classes,
        positive=head.positive,
        members=members,
        calibrator=calibrator,
        operating_points=points,
        prevalence=dict(zip(head.classes, (counts / counts.sum()).tolist(), strict=True)),
        provenance={
            "data_digest": head.data_digest,
            "splits_hash": head.splits_hash,
            "n_images": head.n_images,
            "objective": head.objective,
            "seed": head.seed,
            "versions": head.versions,
            "test_openings_before": count_openings(study),
        },
        files={},
    )


def _evaluate_and_write(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    manifest: Manifest,
    candidates: Candidates,
    scratch: Path,
    step: Step,
) -> tuple[Evaluation, list[dict[str, Any]]]:
    """Golden images, the sealed test, the pages, and the manifest with every file's hash."""
    study = StudyFolder(config.study_folder)
    runtime = Runtime(Bundle(scratch, manifest))
    write_golden(runtime, scratch, count=ensemble.golden)
    test = open_sealed_test(study, purpose=f"bundle {manifest.name} {manifest.version}")
    step(f"evaluating on {len(test)} sealed test images")
    paths, labels = [Path(p) for p in test["path"]], test["label"].to_numpy(np.int64)
    evaluation = evaluate_bundle(runtime, paths, labels, threads=2)
    leaderboard = make_leaderboard(config, ensemble, candidates, evaluation, test)
    metrics = {"test": evaluation.to_json(), "leaderboard": leaderboard}
    write_json(scratch / "metrics.json", metrics)
    (scratch / "card.md").write_text(
        render_card(manifest, evaluation, leaderboard), encoding="utf-8"
    )
    in_ensemble = {member.trial for member in manifest.members}
    openings = count_openings(study)
    write_report(
        scratch / "report.html",
        evaluation,
        manifest,
        title=f"{manifest.name} {manifest.version}: the sealed test",
        leaderboard=leaderboard,
        curves=[
            Curve(
                f"trial {r.number} {r.recipe or r.params.backbone}",
                r.epochs,
                r.number in in_ensemble,
            )
            for r in study.records()
        ],
        notes=[
            f"The sealed test has been opened {openings} times; numbers of the first count most."
        ]
        if openings > 1
        else ["The sealed test was opened once, for this page."],
    )
    final = manifest.model_copy(update={"files": hash_files(scratch)})
    (scratch / MANIFEST).write_text(final.sealed_text(), encoding="utf-8")
    return evaluation, leaderboard
