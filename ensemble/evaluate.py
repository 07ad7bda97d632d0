"""How good a bundle is on labelled images, through the runtime that serves it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.bundle import Bundle, OperatingPoint
from ensemble.operating import clopper_pearson
from ensemble.runtime import Runtime
from search.atomic import finite
from search.data.dataset import Dataset
from search.data.transforms import decode
from search.errors import DamagedImageError, DatasetError
from search.training.metrics import confusion, evaluate_probs, per_class_report


@dataclass(frozen=True)
class Evaluation:
    """The numbers of one bundle on one set of images.

    Attributes:
        labels: class indices, (n_images,).
        probs: calibrated, (n_images, n_classes).
        metrics: scalar metrics by name, see search.training.metrics.
        per_class: a row a class.
        confusion: (n_classes, n_classes), rows are the true classes.
        operating_points: what each point of the bundle does to these images.
        skipped: path and problem of images that could not be read.
    """

    classes: tuple[str, ...]
    positive: int | None
    labels: NDArray[np.int64]
    probs: NDArray[np.float64]
    metrics: dict[str, float]
    per_class: list[dict[str, Any]]
    confusion: NDArray[np.int64]
    operating_points: list[dict[str, Any]]
    skipped: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything but the probabilities; None where a number is undefined."""
        document: dict[str, Any] = {
            "n_images": len(self.labels),
            "classes": list(self.classes),
            "positive": None if self.positive is None else self.classes[self.positive],
            "metrics": self.metrics,
            "per_class": self.per_class,
            "confusion": self.confusion.tolist(),
            "operating_points": self.operating_points,
            "skipped": self.skipped,
        }
        return dict(finite(document))


def evaluate_bundle(
    runtime: Runtime,
    paths: Sequence[Path],
    labels: NDArray[np.int64],
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score labelled images; those that cannot be read are left out and named.

    Args:
        labels: class indices of the bundle's classes, (n_images,).
        threads: images decoded and scored side by side.

    Raises:
        DatasetError: none of the images can be read.
    """
    skipped: dict[str, str] = {}
    member_probs, kept = [], []

    def score(index: int) -> NDArray[np.float32] | None:
        try:
            image = decode(paths[index])
        except DamagedImageError as error:
            skipped[str(paths[index])] = str(error)
            return None
        return runtime.member_probs([runtime.prepare(image)])

    with ThreadPoolExecutor(threads) as pool:
        for index, probs in enumerate(pool.map(score, range(len(paths)))):
            if probs is not None:
                member_probs.append(probs)
                kept.append(index)
            if progress is not None:
                progress(index + 1, len(paths))
    if not kept:
        raise DatasetError(f"none of {len(paths)} images can be read; the first is {paths[0]}")
    prediction = runtime.pooled(np.concatenate(member_probs, axis=1))
    return assess(runtime.bundle, prediction.probs, labels[kept], skipped=skipped)


def assess(
    bundle: Bundle,
    probs: NDArray[np.float64],
    labels: NDArray[np.int64],
    *,
    skipped: dict[str, str] | None = None,
) -> Evaluation:
    """All numbers of calibrated probabilities against labels."""
    classes, positive = tuple(bundle.manifest.classes), bundle.positive_index
    points = bundle.manifest.operating_points if positive is not None else []
    return Evaluation(
        classes=classes,
        positive=positive,
        labels=labels,
        probs=probs,
        metrics=evaluate_probs(probs, labels, positive=positive),
        per_class=per_class_report(probs, labels, classes),
        confusion=confusion(probs, labels),
        operating_points=[apply_point(p, probs[:, positive], labels == positive) for p in points],
        skipped=skipped or {},
    )


def apply_point(
    point: OperatingPoint, score: NDArray[np.float64], is_positive: NDArray[np.bool_]
) -> dict[str, Any]:
    """Sensitivity and specificity of a chosen threshold on other images, with 95% intervals."""
    called = score >= point.threshold
    row: dict[str, Any] = {"name": point.name, "threshold": point.threshold, "target": point.target}
    for name, hits, n in (
        ("sensitivity", int((called & is_positive).sum()), int(is_positive.sum())),
        ("specificity", int((~called & ~is_positive).sum()), int((~is_positive).sum())),
    ):
        row[name] = hits / n if n else None
        row[f"{name}_interval"] = clopper_pearson(hits, n) if n else None
        row["n_positive" if name == "sensitivity" else "n_negative"] = n
    return row


def match_classes(bundle: Bundle, dataset: Dataset) -> NDArray[np.int64]:
    """A data set's labels as the bundle's class indices, (n_images,).

    Raises:
        DatasetError: the data set has a class that the bundle does not know.
    """
    classes = bundle.manifest.classes
    for name in dataset.classes:
        if name not in classes:
            raise DatasetError(
                f"the data's class {name!r} is none of the bundle's ({', '.join(classes)}); "
                "map the raw labels to these under dataset.classes"
            )
    index = np.array([classes.index(name) for name in dataset.classes])
    matched: NDArray[np.int64] = index[dataset.labels]
    return matched
