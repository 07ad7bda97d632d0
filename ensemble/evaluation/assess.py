"""All numbers of calibrated probabilities against labels, each with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ensemble.bundle import Bundle
from ensemble.evaluation.bootstrap import bootstrap
from ensemble.evaluation.pointwise import apply_point
from ensemble.evaluation.results import ClassResult, Evaluation
from ensemble.evaluation.selective import risk_coverage
from ensemble.evaluation.subgroups import subgroup_estimates, usable_columns
from ensemble.evaluation.table import MetricTable
from ensemble.evaluation.utility import decision_curve
from search.training.metrics import confusion

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PER_CLASS = ("auroc", "auprc", "sensitivity", "specificity", "precision", "f1")
REPLICATES = 2000


@dataclass(frozen=True)
class Cases:
    """Labelled images and what a bundle says of them.

    Attributes:
        probs: calibrated, (n_images, n_classes).
        labels: class indices, (n_images,).
        groups: linked images share one, (n_images,).
        table: a row an image, with any metadata; see `usable_columns`.
        decided_on: the probabilities that thresholds were chosen for, (n_images, n_classes), where
            `probs` are shifted to another prevalence; None where they are the same.
    """

    probs: Floats
    labels: Ints
    groups: Ints
    table: pd.DataFrame
    decided_on: Floats | None = None


def assess(
    bundle: Bundle,
    cases: Cases,
    *,
    columns: Sequence[str] | None = None,
    replicates: int = REPLICATES,
    skipped: Mapping[str, str] | None = None,
) -> Evaluation:
    """Metrics, classes, operating points, subgroups and curves of a bundle on labelled images.

    Args:
        columns: metadata to divide by; all that are usable if None.
        replicates: of the bootstrap, which draws groups.
        skipped: images that could not be read.

    Raises:
        ConfigError: a column that the table does not have.
    """
    manifest, positive = bundle.manifest, bundle.positive_index
    probs, labels, groups = cases.probs, cases.labels, cases.groups
    counts = np.bincount(labels, minlength=len(manifest.classes))
    metrics = bootstrap(
        MetricTable(probs, labels, positive=positive), groups, replicates=replicates
    )
    is_positive = labels == positive
    points = [] if positive is None else manifest.operating_points
    score = (probs if cases.decided_on is None else cases.decided_on)[:, positive or 0]
    subgroups = subgroup_estimates(
        probs,
        labels,
        groups,
        usable_columns(cases.table, list(columns) if columns is not None else None),
        positive=positive,
        decided=(points[0], score) if points else None,
        replicates=replicates,
    )
    curve = None
    if positive is not None and is_positive.any() and not is_positive.all():
        curve = decision_curve(probs[:, positive], is_positive, groups, replicates=replicates)
    return Evaluation(
        n_images=len(labels),
        n_groups=len(np.unique(groups)),
        classes=manifest.classes,
        positive=manifest.positive,
        prevalence=dict(zip(manifest.classes, (counts / len(labels)).tolist(), strict=True)),
        metrics=metrics,
        per_class=_per_class(manifest.classes, cases, replicates),
        confusion=confusion(probs, labels).tolist(),
        operating_points=[
            apply_point(p, score, is_positive, groups, replicates=replicates) for p in points
        ],
        subgroups=subgroups,
        decision_curve=curve,
        risk_coverage=risk_coverage(probs, labels),
        skipped=dict(skipped or {}),
    )


def _per_class(classes: Sequence[str], cases: Cases, replicates: int) -> list[ClassResult]:
    results = []
    for k, name in enumerate(classes):
        table = MetricTable(cases.probs, cases.labels, positive=k)
        found = bootstrap(table, cases.groups, replicates=replicates)
        results.append(
            ClassResult(
                name=name,
                n=int((cases.labels == k).sum()),
                metrics={metric: found[metric] for metric in PER_CLASS},
            )
        )
    return results
