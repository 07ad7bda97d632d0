"""The bundle on images that were made worse on purpose, and on its pool without a member."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ensemble.bundle import Bundle
from ensemble.evaluation.bootstrap import bootstrap
from ensemble.evaluation.corruptions import KINDS, Kind, corrupt
from ensemble.evaluation.pointwise import grouped_mean, rates_at
from ensemble.evaluation.results import Contribution, Corrupted, Estimate, Estimates
from ensemble.evaluation.score import score_images
from ensemble.evaluation.table import MetricTable
from ensemble.pool import pool_probs
from ensemble.runtime import Runtime, survivors_of
from search.training.metrics import nll

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SHOWN = ("auroc", "nll", "brier", "ece")
SEVERITIES = range(1, 6)


def measure_corruptions(
    runtime: Runtime,
    paths: Sequence[str | Path],
    labels: Ints,
    groups: Ints,
    *,
    threads: int = 2,
    replicates: int = 2000,
) -> list[Corrupted]:
    """Blur, noise, brightness, JPEG and scale at five severities each, and the images as they are.

    Args:
        paths: of readable images.
        labels: class indices, (n_images,).
        groups: linked images share one, (n_images,).
    """
    todo: list[tuple[Kind | None, int]] = [(None, 0)]
    todo += [(kind, level) for kind in KINDS for level in SEVERITIES]
    found = []
    for kind, level in todo:
        change = None if kind is None else partial(_corrupt, kind, level)
        scored = score_images(runtime, paths, threads=threads, change=change)
        probs = runtime.pooled(scored.scores).probs
        metrics = _metrics(
            runtime.bundle, probs, labels[scored.rows], groups[scored.rows], replicates=replicates
        )
        found.append(Corrupted(kind=kind or "none", severity=level, n=len(probs), metrics=metrics))
    return found


def _corrupt(kind: Kind, level: int, image: Image.Image, index: int) -> Image.Image:
    return corrupt(image, kind, level, seed=index)


def _metrics(
    bundle: Bundle, probs: Floats, labels: Ints, groups: Ints, *, replicates: int
) -> Estimates:
    positive = bundle.positive_index
    table = MetricTable(probs, labels, positive=positive)
    found = bootstrap(table, groups, replicates=replicates)
    metrics = {name: found[name] for name in SHOWN}
    point = bundle.operating_point()
    if positive is None or point is None:
        return metrics
    is_positive, score = labels == positive, probs[:, positive]
    return metrics | rates_at(point, score, is_positive, groups, replicates=replicates)


def member_contributions(
    bundle: Bundle,
    member_probs: NDArray[np.float32],
    labels: Ints,
    groups: Ints,
    *,
    replicates: int = 2000,
) -> list[Contribution]:
    """What the log loss of these images would be without each member, calibrated as it would be.

    Args:
        member_probs: (n_members, n_images, n_classes).
    """
    members, manifest = bundle.manifest.members, bundle.manifest
    weights = np.array([member.weight for member in members])
    whole = _losses(manifest.calibrator.apply(pool_probs(member_probs, weights)), labels)
    found = []
    for i, member in enumerate(members):
        rest = [j for j in range(len(members)) if j != i]
        left = survivors_of(bundle, [members[j].name for j in rest])
        without = Estimate(value=None)
        if left is not None:
            pooled = pool_probs(member_probs[rest], weights[rest] / weights[rest].sum())
            without = grouped_mean(
                _losses(left.calibrator.apply(pooled), labels) - whole,
                groups,
                replicates=replicates,
            )
        single = survivors_of(bundle, [member.name])
        calibrator = manifest.calibrator if single is None else single.calibrator
        alone = nll(calibrator.apply(member_probs[i]), labels)
        found.append(
            Contribution(
                member=member.name, weight=member.weight, alone=alone, loss_without=without
            )
        )
    return found


def _losses(probs: Floats, labels: Ints) -> Floats:
    losses: Floats = -np.log(np.clip(probs[np.arange(len(labels)), labels], 1e-7, 1))
    return losses
