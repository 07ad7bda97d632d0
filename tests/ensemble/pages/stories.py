"""Handmade stories: two classes with everything there is, three classes with the least."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ensemble.calibration.calibrators import Temperature
from ensemble.calibration.results import CalibratorWorth
from ensemble.decision.points import OperatingPoint
from ensemble.evaluation.results import (
    ClassResult,
    Contribution,
    Corrupted,
    DecisionCurve,
    Difference,
    Estimate,
    Evaluation,
    Example,
    LeaderboardRow,
    PointResult,
    RiskCoverage,
    Subgroup,
    Verdict,
)
from ensemble.manifest import (
    Agreement,
    Cascade,
    Exit,
    Manifest,
    Member,
    Network,
    NovelKind,
    Novelty,
    Stage,
    Survivors,
)
from ensemble.pages.story import Curve, Story
from ensemble.selection.results import ChoiceWorth, Pair, Selection
from search.data.transforms import Preprocessing
from search.params import Params
from tests.points import a_point

EVIL = "</script><b>|*x*"
NOTICE = "Educational and research use; not a medical device."
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
LABELS = np.array([0, 0, 0, 1, 1])
PROBS = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.1, 0.9]])


@dataclass(frozen=True)
class Band:
    lower: float
    upper: float
    sensitivity: float
    specificity: float
    referred: float


@dataclass(frozen=True)
class Views:
    views: str
    nll: float
    difference: float
    standard_error: float
    cost: float
    chosen: bool


def est(value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high)


def operating_point(name: str, threshold: float, refer_from: float | None = None) -> OperatingPoint:
    certified = name == "screen"
    return a_point(
        name,
        threshold,
        refer_from=refer_from,
        confidence=0.9,
        sensitivity=0.975,
        sensitivity_interval=(0.955, 0.99),
        specificity_interval=(0.4, 0.6),
        n_positive=120,
        n_negative=200,
        certified=certified,
        reason="117 of 120 were caught" if certified else "not certifiable with n₊ = 41",
    )


def result_of(point: OperatingPoint) -> PointResult:
    return PointResult(
        name=point.name,
        target=point.target,
        threshold=point.threshold,
        refer_from=point.refer_from,
        certified=point.certified,
        reason=point.reason,
        n_positive=2,
        n_negative=3,
        sensitivity=est(0.96, 0.904, 0.991),
        specificity=est(0.75, 0.7, 0.8),
        ppv=est(0.4, 0.3, 0.5),
        npv=est(0.99, 0.98, 1.0),
        referred=0.0 if point.refer_from is None else 0.2,
        confusion=[[1, 1, 1], [0, 1, 1]],
    )


def member(name: str, weight: float) -> Member:
    return Member(
        name=name,
        trial=0,
        params=Params(backbone="cnn"),
        preprocessing=Preprocessing(size=16, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
        weight=weight,
        networks=[
            Network(
                fold=k, weights_file=f"{name}_{k}.st", onnx_file=f"{name}_{k}.onnx", parity=1e-6
            )
            for k in range(2)
        ],
        params_m=1.5,
        latency_ms=10.25,
    )


def manifest_of(classes: list[str], positive: str | None, **more: Any) -> Manifest:
    """Two members and, where a class is positive, two operating points."""
    points = [operating_point("screen", 0.15), operating_point("band", 0.85, 0.3)]
    given: dict[str, Any] = {
        "name": "tiny",
        "version": "1",
        "created": "2026-01-01T00:00:00+00:00",
        "classes": classes,
        "positive": positive,
        "members": [member("cnn_0", 0.75), member("cnn_1", 0.25)],
        "calibrator": Temperature(temperature=1.3),
        "operating_points": points if positive else [],
        "prevalence": dict.fromkeys(classes, 1 / len(classes)),
        "provenance": {"n_images": {"train": 1400, "test": 5}, "data_digest": "d1"},
        "files": {},
    }
    return Manifest(**(given | more))


def evaluation_of(manifest: Manifest, **more: Any) -> Evaluation:
    metrics = {
        "auroc": est(0.9, 0.85, 0.95),
        "nll": est(0.3, 0.2, 0.4),
        "ece": est(0.05, 0.02, 0.1),
    }
    given: dict[str, Any] = {
        "n_images": 5,
        "n_groups": 4,
        "classes": manifest.classes,
        "positive": manifest.positive,
        "prevalence": dict(zip(manifest.classes, (0.6, 0.4, 0.0), strict=False)),
        "metrics": metrics | {"smooth_ece": est(0.04), "accuracy": est(0.8, 0.6, 1.0)},
        "per_class": [ClassResult(name=c, n=2, metrics=metrics) for c in manifest.classes],
        "confusion": [[2, 1], [0, 2]] if len(manifest.classes) == 2 else np.eye(3, dtype=int),
        "operating_points": [result_of(p) for p in manifest.operating_points],
    }
    return Evaluation(**(given | more))


def full_evaluation(manifest: Manifest) -> Evaluation:
    metrics = {"sensitivity": est(0.95, 0.9, 0.99), "auroc": est(0.9, 0.8, 0.95)}
    weak = {"sensitivity": est(0.7, 0.55, 0.85), "auroc": est(None)}
    worse = {"auroc": est(0.7, 0.6, 0.8), "sensitivity": est(0.8, 0.7, 0.9)}
    difference = {"nll": est(-0.02, -0.03, -0.01), "auroc": est(0.01, -0.01, 0.03)}
    return evaluation_of(
        manifest,
        subgroups=[
            Subgroup(column="sex", value="female", n=90, n_positive=20, metrics=metrics),
            Subgroup(column="site", value="palms", n=30, n_positive=9, metrics=weak),
        ],
        corruptions=[
            Corrupted(kind="none", severity=0, n=5, metrics=metrics),
            *[Corrupted(kind="blur", severity=s, n=5, metrics=worse) for s in (1, 5)],
        ],
        differences=[Difference(against="best single", metrics=difference)],
        decision_curve=DecisionCurve(
            thresholds=[0.1, 0.5],
            bundle=[est(0.3, 0.2, 0.4), est(0.1, 0.0, 0.2)],
            treat_all=[0.33, -0.2],
        ),
        risk_coverage=RiskCoverage(coverage=[0.5, 1.0], risk=[0.0, 0.2]),
        contributions=[
            Contribution(member="cnn_0", weight=0.75, alone=0.4, loss_without=est(0.1, 0.05, 0.2))
        ],
        skipped={"/data/a.jpg": "truncated"},
    )


def full_manifest(**more: Any) -> Manifest:
    point = operating_point("screen", 0.2)
    given: dict[str, Any] = {
        "survivors": [
            Survivors(members=["cnn_0"], calibrator=Temperature(), operating_points=[point])
        ],
        "cascade": Cascade(
            stages=[
                Stage(
                    members=["cnn_0"],
                    exits=[Exit(point="screen", negative_below=0.05, positive_from=0.6)],
                    leaving={"screen": 0.5},
                )
            ],
            agreements=[Agreement(point="screen", disagreements=1, n=300, at_most=0.018, cost=0.4)],
            confidence=0.95,
        ),
        "out_of_distribution": Novelty(
            member="cnn_0",
            network=0,
            reference_file="novelty.safetensors",
            k=5,
            threshold=0.3,
            flagged_held_back=0.02,
            measured=[NovelKind(kind="noise", n=50, auroc=0.98, flagged=0.94)],
        ),
        "gates": ["sensitivity_in_subgroups"],
    }
    return manifest_of(["benign", "malignant"], "malignant", **(given | more))


def full_story(**more: Any) -> Story:
    """Two classes, and every section there is."""
    manifest = full_manifest()
    board = [("ensemble", 0.30, 0.91), ("best single", 0.35, 0.9104), ("recipe vgg16", 0.25, 0.85)]
    story = Story(
        title="tiny 1: the sealed test",
        evaluation=full_evaluation(manifest),
        probs=PROBS,
        labels=LABELS,
        manifest=manifest,
        selection=Selection(
            choice="greedy",
            weights=[0.75, 0.25, 0.0],
            choices=[
                ChoiceWorth(
                    choice="greedy",
                    nll=0.3,
                    difference=0,
                    standard_error=0,
                    members=2,
                    shipped=True,
                ),
                ChoiceWorth(
                    choice="all", nll=0.31, difference=0.01, standard_error=0.002, members=3
                ),
            ],
            trajectory=[0.4, 0.3, 0.32],
            pairs=[
                Pair(first=0, second=1, disagreement=0.1, error_correlation=0.5, near_copy=False),
                Pair(first=0, second=2, disagreement=0.0, error_correlation=1.0, near_copy=True),
            ],
            notes=["trial 2 is a near copy of trial 0"],
        ),
        candidate_names=["trial 0", "trial 1", "trial 2"],
        calibrators=[
            CalibratorWorth(kind="identity", nll=0.32, difference=0.02, standard_error=0.01),
            CalibratorWorth(
                kind="temperature", nll=0.3, difference=0, standard_error=0, chosen=True
            ),
        ],
        refer_fronts={"band": [Band(0.3, 0.85, 0.96, 0.9, 0.2), Band(0.1, 0.9, 0.99, 0.95, 0.5)]},
        views=[Views("none", 0.3, 0, 0, 1, True), Views("flips", 0.31, 0.01, 0.002, 4, False)],
        leaderboard=[
            LeaderboardRow(
                who=who,
                what="all",
                metrics={"auroc": est(auroc), "nll": est(nll), "ece": est(None)},
            )
            for who, nll, auroc in board
        ],
        verdicts=[Verdict(gate="brier", rule="0.176 is at most 0.191", holds=True)],
        examples=[Example(image="a.jpg", label="malignant", probability=0.04, thumbnail=PIXEL)],
        curves=[
            Curve("trial 0", [{"nll": 0.7}, {"nll": 0.4}, {"lr": 0.1}], True),
            Curve("trial 1", [{"nll": 9.0}], False),
        ],
        notes=["Opened once."],
    )
    return replace(story, **more)


def least_story(**more: Any) -> Story:
    """Three classes, none of them positive, as an external evaluation knows them."""
    manifest = manifest_of(["a", "b", "c"], None)
    labels = np.array([0, 1, 2, 0, 1])
    story = Story(
        title="tiny 1 on others",
        evaluation=evaluation_of(manifest),
        probs=np.eye(3)[labels] * 0.7 + 0.1,
        labels=labels,
    )
    return replace(story, **more)
