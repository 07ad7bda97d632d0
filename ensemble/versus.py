"""Two bundles on the same sealed test: how much worse the one may be than the other.

Both score the same images, and each bootstrap replicate draws the same groups for both. Images
that either bundle was made from are left out: they would flatter it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ensemble.bundle import Bundle
from ensemble.decision.points import OperatingPoint
from ensemble.evaluation.bootstrap import DEFINED, REPLICATES, replicate
from ensemble.evaluation.score import Progress, score_images
from ensemble.evaluation.table import MetricTable
from ensemble.runtime import Runtime
from ensemble.seen import seen_among
from search.errors import BundleError, GateError
from search.params import Config
from search.study.records import StudyFolder
from search.study.sealed import open_sealed_test

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Metric = Literal["nll", "brier", "ece", "auroc", "auprc", "sensitivity", "specificity"]
LOSSES = ("nll", "brier", "ece")  # of the others, more is better
AT_POINT = ("sensitivity", "specificity")
CONFIDENCE = 0.95
THREADS = 2


class Paired(Config):
    """One metric of two bundles on the same images."""

    metric: Metric
    candidate: float | None
    serving: float | None
    worse: float | None = Field(description="by how much the candidate is; below 0 it is better")
    bound: float | None = Field(
        description="one-sided upper bound of `worse`; null where it cannot be told"
    )


class Versus(Config):
    """Two bundles on one sealed test."""

    candidate: str = Field(description="digest")
    serving: str = Field(description="digest")
    n_images: int
    n_groups: int
    seen: int = Field(description="images left out: one of the bundles was made from them")
    skipped: int = Field(description="images that could not be read")
    unlisted: list[str] = Field(
        description="bundles that do not say which images they were made from"
    )
    differences: list[Paired]


@dataclass(frozen=True)
class Said:
    """What one bundle says of some images.

    Attributes:
        probs: calibrated, (n_images, n_classes).
        point: the operating point that sensitivity and specificity are at.
    """

    probs: Floats
    point: OperatingPoint | None = None


@dataclass(frozen=True)
class Truth:
    """What the images are.

    Attributes:
        labels: class indices, (n_images,).
        groups: linked images share one, (n_images,).
        positive: class index, or None.
    """

    labels: Ints
    groups: Ints
    positive: int | None = None


def compare_on_test(
    candidate: Bundle,
    serving: Bundle,
    study: StudyFolder,
    metrics: Sequence[Metric],
    *,
    min_images: int = 30,
    progress: Progress = lambda _done, _n: None,
) -> Versus:
    """Score both on a study's sealed test and compare; the opening is noted in the study.

    Args:
        min_images: fewer that neither has seen are not compared.
        progress: hears of images scored, by both together.

    Raises:
        BundleError: the two know different classes, or one lacks an operating point that a metric
            is at; told before the seal is opened.
        GateError: too few images are left.
    """
    bundles = {"candidate": candidate, "serving": serving}
    for name, bundle in bundles.items():
        _check(name, bundle, study, metrics)
    digests = {name: bundle.manifest.digest for name, bundle in bundles.items()}
    purpose = "gate: {candidate:.12} against {serving:.12}".format(**digests)
    test = open_sealed_test(study, purpose=purpose)
    seen = _seen(test["path"].tolist(), list(bundles.values()))
    _refuse_few(len(test) - int(seen.sum()), len(test), min_images)
    unseen = test[~seen]
    rows, said = _scored(
        list(bundles.values()),
        unseen["path"].tolist(),
        classes=candidate.manifest.classes,
        progress=progress,
    )
    _refuse_few(len(rows), len(test), min_images)
    kept = unseen.iloc[rows]
    # The study counts classes in its own order, which bundles of it share.
    names = np.array(study.head().classes)[kept["label"].to_numpy(np.int64)]
    truth = Truth(
        np.array([candidate.manifest.classes.index(name) for name in names], np.int64),
        kept["group"].to_numpy(np.int64),
        candidate.positive_index,
    )
    return Versus(
        **digests,
        n_images=len(kept),
        n_groups=int(kept["group"].nunique()),
        seen=int(seen.sum()),
        skipped=len(unseen) - len(rows),
        unlisted=[name for name, b in bundles.items() if b.manifest.seen_file is None],
        differences=pair(said[0], said[1], truth, metrics),
    )


def pair(
    candidate: Said,
    serving: Said,
    truth: Truth,
    metrics: Sequence[Metric],
    *,
    confidence: float = CONFIDENCE,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[Paired]:
    """By how much the candidate is worse, by metric, with a one-sided bound of it.

    The bound is a percentile of the grouped bootstrap's paired differences (see
    ensemble/evaluation/bootstrap.py). There is none with fewer than five groups, nor where over 1%
    of the replicates are undefined.
    """
    sides = [_values(said, truth, metrics) for said in (candidate, serving)]

    def both(counts: Floats) -> Floats:
        return np.concatenate([side(counts) for side in sides])

    drawn = replicate(both, truth.groups, replicates=replicates, seed=seed, threads=THREADS)
    once, n = both(np.ones((1, len(truth.labels))))[:, 0], len(metrics)
    sign = np.array([1.0 if metric in LOSSES else -1.0 for metric in metrics])
    worse = sign * (once[:n] - once[n:])
    draws = sign[:, None] * (drawn[:n] - drawn[n:])
    return [
        Paired(
            metric=metric,
            candidate=_number(once[i]),
            serving=_number(once[n + i]),
            worse=_number(worse[i]),
            bound=_upper(draws[i], confidence),
        )
        for i, metric in enumerate(metrics)
    ]


def _check(name: str, bundle: Bundle, study: StudyFolder, metrics: Sequence[Metric]) -> None:
    """Refuse what cannot be compared, while the seal is closed."""
    head, manifest = study.head(), bundle.manifest
    if set(manifest.classes) != set(head.classes) or manifest.positive != head.positive:
        raise BundleError(
            f"{bundle.folder}: the {name} bundle knows {', '.join(manifest.classes)} (positive: "
            f"{manifest.positive}), the study {', '.join(head.classes)} (positive: "
            f"{head.positive}): they cannot be compared; serve bundles of other classes elsewhere"
        )
    asked = [metric for metric in metrics if metric in AT_POINT]
    if asked and (bundle.positive_index is None or bundle.operating_point() is None):
        raise BundleError(
            f"{bundle.folder}: the {name} bundle has no operating point that {asked[0]} could be "
            "at; leave it out of pipeline.gate"
        )


def _seen(paths: Sequence[str], bundles: Sequence[Bundle]) -> Bools:
    """Images that any of the bundles was made from, (n_images,)."""
    seen = np.zeros(len(paths), np.bool_)
    for bundle in bundles:
        if bundle.manifest.seen_file is not None:
            seen |= seen_among(bundle.folder, paths)
    return seen


def _refuse_few(left: int, n_images: int, min_images: int) -> None:
    if left < min_images:
        raise GateError(
            f"{left} of {n_images} sealed test images can be read and are new to both bundles, "
            f"and {min_images} are asked for: nothing can be told; gather more images, or lower "
            "pipeline.min_images"
        )


def _scored(
    bundles: Sequence[Bundle], paths: Sequence[str], *, classes: Sequence[str], progress: Progress
) -> tuple[Ints, list[Said]]:
    """Rows that all could read, (n_read,), and what each bundle says, by the order of classes."""
    found, n = [], len(paths)
    for i, bundle in enumerate(bundles):
        runtime = Runtime(bundle)
        scored = score_images(
            runtime,
            paths,
            threads=THREADS,
            progress=lambda done, _, before=i * n: progress(before + done, len(bundles) * n),  # type: ignore[misc]
        )
        order = [bundle.manifest.classes.index(name) for name in classes]
        found.append((scored.rows, runtime.pooled(scored.scores).probs[:, order]))
    rows = found[0][0]
    for other, _ in found[1:]:
        rows = np.intersect1d(rows, other)
    return rows, [
        Said(probs[np.isin(own, rows)], bundle.operating_point())
        for (own, probs), bundle in zip(found, bundles, strict=True)
    ]


def _values(said: Said, truth: Truth, metrics: Sequence[Metric]) -> Callable[[Floats], Floats]:
    """From counts, (n_replicates, n_images), to every metric, (n_metrics, n_replicates)."""
    smooth = [name for name in metrics if name not in AT_POINT]
    table = MetricTable(said.probs, truth.labels, positive=truth.positive, only=smooth)
    rates = _rates(said, truth) if len(smooth) < len(metrics) else {}

    def values(counts: Floats) -> Floats:
        known = table.values(counts) if smooth else {}
        found = known | {name: _share(counts, *rates[name]) for name in rates}
        return np.stack([found[name] for name in metrics])

    return values


def _rates(said: Said, truth: Truth) -> Mapping[str, tuple[Bools, Bools]]:
    """By name: images that hold, among those that count."""
    if said.point is None or truth.positive is None:
        raise ValueError("sensitivity and specificity need an operating point")
    point, is_positive = said.point, truth.labels == truth.positive
    decided = np.array([point.decide(float(p)) for p in said.probs[:, truth.positive]])
    # Referred positives are not missed, referred negatives are no false alarms.
    return {
        "sensitivity": (is_positive & (decided != "negative"), is_positive),
        "specificity": (~is_positive & (decided != "positive"), ~is_positive),
    }


def _share(counts: Floats, hits: Bools, among: Bools) -> Floats:
    part, whole = counts @ hits, counts @ among
    share: Floats = np.divide(part, whole, out=np.full(len(counts), math.nan), where=whole > 0)
    return share


def _upper(draws: Floats, confidence: float) -> float | None:
    defined = draws[~np.isnan(draws)]
    if len(defined) < DEFINED * len(draws) or len(defined) == 0:
        return None
    return float(np.quantile(defined, confidence))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
