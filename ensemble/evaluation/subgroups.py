"""The same numbers for parts of the images: one sex, one site, one band of ages."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ensemble.decision.points import OperatingPoint
from ensemble.evaluation.bootstrap import REPLICATES, Groups, bootstrap
from ensemble.evaluation.pointwise import rates_at
from ensemble.evaluation.results import Subgroup
from ensemble.evaluation.table import MetricTable
from search.errors import ConfigError

Floats = NDArray[np.float64]
AGES = (30, 45, 60, 75)  # where a band of ages starts
BANDS = ("<30", "30-44", "45-59", "60-74", "75+")
UNKNOWN = "unknown"
NO_METADATA = (
    "image", "image_id", "path", "label", "raw_label", "split", "lesion", "patient", "group",
    "part", "fold", "digest",
)  # fmt: skip
MOST_VALUES = 15
FEWEST_IMAGES = 10
METRICS = ("auroc", "nll", "brier", "ece")


def subgroup_estimates(
    probs: NDArray[np.floating],
    labels: NDArray[np.int64],
    groups: Groups,
    columns: Mapping[str, Sequence[str]],
    *,
    positive: int | None = None,
    decided: tuple[OperatingPoint, Floats] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[Subgroup]:
    """auroc, nll, brier and ece of each value of each column, with bootstrap intervals.

    With `positive` and `decided`, also sensitivity and specificity at that point, with the
    intervals of `grouped_rate`. Values
    of fewer than 10 images are left out; a subgroup's bootstrap draws its own groups.

    Args:
        probs: (n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        groups: as in ensemble.evaluation.bootstrap.bootstrap; so are replicates, seed.
        columns: a value an image by the column's name, see `usable_columns`.
        positive: class index, or None: macro averages.
        decided: a point of decisions about `positive`, and the probability it goes by,
            (n_images,).

    Raises:
        ValueError: a column or groups of another number of images; what MetricTable refuses.
    """
    group = np.asarray(groups)
    found = []
    for column, values in columns.items():
        if not len(values) == len(group) == len(labels):
            raise ValueError(
                f"column {column!r} and groups must be one an image: "
                f"{len(values)} and {len(group)} for {len(labels)} images"
            )
        for value in _in_order(values):
            rows = np.array([entry == value for entry in values])
            if rows.sum() < FEWEST_IMAGES:
                continue
            table = MetricTable(probs[rows], labels[rows], positive=positive, only=METRICS)
            metrics = bootstrap(table, group[rows], replicates=replicates, seed=seed)
            if positive is not None and decided is not None:
                point, score = decided
                is_positive = labels[rows] == positive
                metrics |= rates_at(
                    point, score[rows], is_positive, group[rows], replicates=replicates
                )
            found.append(
                Subgroup(
                    column=column,
                    value=value,
                    n=int(rows.sum()),
                    n_positive=None if positive is None else int((labels[rows] == positive).sum()),
                    metrics=metrics,
                )
            )
    return found


def usable_columns(table: pd.DataFrame, wanted: Sequence[str] | None) -> dict[str, list[str]]:
    """Metadata as a value an image: ages in bands, "unknown" where it is missing.

    Args:
        table: a row an image.
        wanted: columns by name; None: all that have 2 to 15 values.

    Raises:
        ConfigError: a wanted column that the table lacks, or that is no metadata.
    """
    present = [str(name) for name in table.columns if name not in NO_METADATA]
    for name in wanted or ():
        if name not in present:
            raise ConfigError(
                f"ensemble.subgroups: there is no metadata column {name!r}; the data has "
                f"{', '.join(present) or 'none'}. Name one of these, or bring it in by "
                "dataset.sources[].columns"
            )
    columns = {
        name: bands(table[name].tolist()) for name in (present if wanted is None else wanted)
    }
    return {
        name: [UNKNOWN if value is None else value for value in values]
        for name, values in columns.items()
        if wanted is not None or 2 <= len({*values} - {None}) <= MOST_VALUES
    }


def bands(values: Sequence[Any]) -> list[str | None]:
    """A column's values as text, None where one is missing.

    Numbers that reach 30 are ages and become bands; smaller ones are codes and stay.
    """
    missing = [
        value is None or bool(pd.isna(value)) or str(value).strip() == "" for value in values
    ]
    known = [value for value, gone in zip(values, missing, strict=True) if not gone]
    numbers = _numbers(known)
    if numbers is None:
        texts = [str(value).strip() for value in known]
    elif max(numbers, default=0) < AGES[0]:
        texts = [f"{number:g}" for number in numbers]
    else:
        texts = [BANDS[i] for i in np.searchsorted(AGES, numbers, side="right")]
    named = iter(texts)
    return [None if gone else next(named) for gone in missing]


def _numbers(known: Sequence[Any]) -> list[float] | None:
    """All as numbers, or None if one is none; yes and no are none."""
    if any(isinstance(value, bool | np.bool_) for value in known):
        return None
    try:
        numbers = [float(value) for value in known]
    except (TypeError, ValueError):
        return None
    return numbers if all(math.isfinite(number) for number in numbers) else None


def _in_order(values: Sequence[str]) -> list[str]:
    """Distinct values: bands by age, the rest by name, the unknown last."""
    rank = {band: i for i, band in enumerate(BANDS)}
    return sorted({*values}, key=lambda value: (value == UNKNOWN, rank.get(value, -1), value))
