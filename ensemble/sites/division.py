"""Which images train, choose the threshold and judge when one site is left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ensemble.evaluation.bootstrap import FEWEST_GROUPS
from ensemble.evaluation.subgroups import NO_METADATA, UNKNOWN, bands
from search.data.splits import assign_groups
from search.errors import StudyError

Ints = NDArray[np.int64]
BY_DEFAULT = ("source", "site")  # the first with sites to leave out


@dataclass(frozen=True)
class Division:
    """Rows of the open images, ascending; together they are all of them.

    Attributes:
        train, held_back: of the others; no group of linked images is in both.
        left_out: the site's.
        dropped: of the others, linked to an image of the site's.
    """

    train: Ints
    held_back: Ints
    left_out: Ints
    dropped: Ints


@dataclass(frozen=True)
class Column:
    """A column of sites.

    Attributes:
        name: of the column.
        sites: of each image, (n_images,); "unknown" where it is blank.
        left_out: sites with enough cases, by name.
        kept: why each other site is not left out.
    """

    name: str
    sites: Sequence[str]
    left_out: Sequence[str]
    kept: Mapping[str, str]


def choose_column(
    images: pd.DataFrame, by: str | None, *, positive: int | None, min_cases: int
) -> Column:
    """The column to go by: the one that is named, or else source or site.

    Args:
        images: open images with label and group.
        by: a column's name; None: source, where its sites have enough cases, or else site.
        positive: class index; None: any two classes must have enough.
        min_cases: images that a site needs, with 5 groups of each class.

    Raises:
        StudyError: there is no such column, or fewer than two of its sites have enough cases.
    """
    known = [str(n) for n in images.columns if n not in NO_METADATA and images[n].notna().any()]
    if by is not None and by not in known:
        raise StudyError(
            f"--by {by}: the images have no such column; there are {', '.join(known)}. Name one "
            "of these, or bring it in by dataset.sources[].columns"
        )
    columns = [
        _column(images, name, positive=positive, min_cases=min_cases)
        for name in (BY_DEFAULT if by is None else (by,))
        if name in known
    ]
    for column in columns:
        if len(column.left_out) > 1:
            return column
    counted = "; ".join(_counted(images, column, positive) for column in columns)
    raise StudyError(
        f"leaving sites out takes two with {min_cases} images and {FEWEST_GROUPS} groups of linked "
        f"images of each class: {counted}. Lower --min-cases, or name another column by --by: "
        f"there are {', '.join(known)}"
    )


def divide_site(
    labels: Ints, groups: Ints, sites: Sequence[str], site: str, *, share: float, seed: int
) -> Division:
    """Leave a site out: what is linked to it is dropped, the rest trains or is held back.

    Images of no known site are others, too.

    Args:
        labels: class indices, (n_images,).
        groups: linked images share one, (n_images,).
        sites: (n_images,).
        site: one of them.
        share: of the others that is held back, of each class.
        seed: of what is held back.
    """
    left = np.array([each == site for each in sites], np.bool_)
    linked = np.isin(groups, groups[left]) & ~left
    others = np.flatnonzero(~left & ~linked)
    part = np.zeros(0, np.int64)
    if len(others):
        part = assign_groups(labels[others], groups[others], (1 - share, share), seed=seed)
    return Division(
        others[part == 0], others[part == 1], np.flatnonzero(left), np.flatnonzero(linked)
    )


def division_problem(
    division: Division,
    labels: Ints,
    groups: Ints,
    *,
    classes: Sequence[str],
    positive: int | None,
) -> str | None:
    """Why nothing can be learned or judged without the site; None where it can."""
    there = {*labels[division.train].tolist()}
    for index, name in enumerate(classes):
        if index not in there:
            return f"the others have no image of class {name!r} to train on"
    held = division.held_back
    if not _enough(labels[held], groups[held], positive):
        return f"the others' held-back part has fewer than {FEWEST_GROUPS} groups of a class"
    return None


def site_names(values: Sequence[object], column: str) -> list[str]:
    """A column as text; blank is "unknown", ages are bands, 3.0 is 3."""
    if column == "age":
        return [UNKNOWN if value is None else value for value in bands(values)]
    return [_name(value) for value in values]


def _name(value: object) -> str:
    if value is None or value is pd.NaT or (isinstance(value, float) and np.isnan(value)):
        return UNKNOWN
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value).strip() or UNKNOWN


def _column(images: pd.DataFrame, name: str, *, positive: int | None, min_cases: int) -> Column:
    sites = site_names(images[name].tolist(), name)
    labels, groups = images["label"].to_numpy(np.int64), images["group"].to_numpy(np.int64)
    chosen: list[str] = []
    kept: dict[str, str] = {}
    for site in sorted({*sites} - {UNKNOWN}):
        rows = np.array([each == site for each in sites], np.bool_)
        n = int(rows.sum())
        if n < min_cases:
            kept[site] = f"{n} images, fewer than {min_cases}"
        elif not _enough(labels[rows], groups[rows], positive):
            kept[site] = (
                f"{n} images, but of a class fewer than {FEWEST_GROUPS} that are not linked"
            )
        else:
            chosen.append(site)
    return Column(name, sites, chosen, kept)


def _enough(labels: Ints, groups: Ints, positive: int | None) -> bool:
    """Whether two classes, or the positive one and the rest, have groups for an interval."""
    kinds = labels if positive is None else (labels == positive).astype(np.int64)
    counts = [len(np.unique(groups[kinds == kind])) for kind in np.unique(kinds)]
    return sum(count >= FEWEST_GROUPS for count in counts) > 1


def _counted(images: pd.DataFrame, column: Column, positive: int | None) -> str:
    labels = images["label"].to_numpy(np.int64)
    found = []
    for site in sorted({*column.sites}):
        rows = np.array([each == site for each in column.sites], np.bool_)
        n = f"{site} {int(rows.sum())}"
        if positive is not None:
            n += f" ({int((labels[rows] == positive).sum())} positive)"
        found.append(n)
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    return f"{column.name} has {', '.join(found[:8])}{more}"
