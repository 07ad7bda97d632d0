"""What can be wrong with a dataset: one function a kind of defect, each on arrays of rows."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.data.dataset import STANDARD
from search.data.links import components

Links = Mapping[str, NDArray[np.int64]]
WORDS = {
    "image_id": "image id",
    "file": "file",
    "pixels": "pixels",
    "near": "near-duplicates",
    "lesion": "lesion",
    "patient": "patient",
}


class Defect(NamedTuple):
    """Where one kind of defect is.

    Attributes:
        rows: row numbers; alone, or together where images are at odds with each other.
        counts: name: number of images or groups, or share of blanks.
        note: one line for people.
    """

    rows: list[NDArray[np.int64]]
    counts: Mapping[str, float]
    note: str


def find_damaged(facts: pd.DataFrame) -> Defect:
    """Files that are missing, empty or do not decode in full."""
    rows = np.flatnonzero(facts["problem"].notna())
    problems = tally(facts["problem"].iloc[rows])
    if not len(rows):
        return Defect([], {"images": 0}, "every file decodes in full")
    note = f"{_count(len(rows), 'file')} cannot be used: {_listed(problems)}"
    return Defect(list(rows[:, None]), {"images": len(rows), **problems}, note)


def find_tiny(facts: pd.DataFrame, min_side: int) -> Defect:
    """Images with a side below a number of pixels."""
    side = facts[["width", "height"]].min(axis=1).to_numpy()
    rows = np.flatnonzero((side > 0) & (side < min_side))
    if not len(rows):
        return Defect([], {"images": 0}, f"every side has {min_side} pixels or more")
    note = f"{_count(len(rows), 'image')} with a side under {min_side} pixels, down to "
    return Defect(list(rows[:, None]), {"images": len(rows)}, f"{note}{side[rows].min()}")


def find_non_rgb(facts: pd.DataFrame) -> Defect:
    """Images in another mode, which decoding converts."""
    rows = np.flatnonzero(facts["mode"].notna() & (facts["mode"] != "RGB"))
    modes = tally(facts["mode"].iloc[rows])
    if not len(rows):
        return Defect([], {"images": 0}, "every image is RGB")
    note = f"{_count(len(rows), 'image')} in another mode, converted when read: {_listed(modes)}"
    return Defect(list(rows[:, None]), {"images": len(rows), **modes}, note)


def find_missing_metadata(table: pd.DataFrame) -> Defect:
    """Blanks in columns that are given for some images; a column of blanks is not given at all."""
    blank = table[[name for name in table.columns if name not in STANDARD]].isna()
    given = [str(name) for name in blank if not blank[name].all()]
    shares = {str(name): round(float(share), 4) for name, share in blank.mean().items()}
    rows = np.flatnonzero(blank[given].any(axis=1))
    counts = {"images": len(rows), **shares}
    if not len(rows):
        return Defect([], counts, "no metadata column that is given has blanks")
    blanks = [f"{name} {shares[name]:.1%}" for name in given if blank[name].any()]
    note = f"{_count(len(rows), 'image')} with blanks in {', '.join(blanks)}"
    return Defect(list(rows[:, None]), counts, note)


def find_label_conflicts(table: pd.DataFrame, links: Links) -> Defect:
    """One picture, by file or pixels, under several raw labels."""
    raw, label = table["raw_label"].to_numpy(), table["label"].to_numpy()
    rows = [group for group in _exact_groups(links, len(table)) if len(set(raw[group])) > 1]
    differing = sum(len(set(label[group])) > 1 for group in rows)
    counts = {"groups": len(rows), "class_groups": differing, "images": sum(map(len, rows))}
    if not rows:
        return Defect([], counts, "no picture stands under more than one label")
    note = f"{_count(len(rows), 'picture')} under more than one label, {differing} of them under "
    return Defect(rows, counts, f"{note}more than one class")


def find_duplicates(links: Links, n: int) -> Defect:
    """One picture, by file or pixels, in several images."""
    rows = _exact_groups(links, n)
    images = sum(map(len, rows))
    by = {f"by_{name}": len(_groups(components(n, links[name]))) for name in ("file", "pixels")}
    counts = {"groups": len(rows), **by, "images": images, "extra": images - len(rows)}
    if not rows:
        return Defect([], counts, "no picture is found more than once")
    note = (
        f"{_count(len(rows), 'picture')} found more than once ({by['by_file']} by identical files, "
        f"{by['by_pixels']} by identical pixels); further copies: {images - len(rows)}"
    )
    return Defect(rows, counts, note)


def find_near_duplicates(links: Links, n: int, distance: int) -> Defect:
    """Different pictures whose hashes nearly agree; of equal ones the first stands for all."""
    rows = _groups(components(n, links["near"]))
    largest = max(map(len, rows), default=0)
    counts = {"groups": len(rows), "images": sum(map(len, rows)), "largest": largest}
    if not rows:
        return Defect([], counts, f"no two pictures within {distance} bits of 256")
    note = f"{_count(len(rows), 'group')} of pictures within {distance} bits of 256, "
    return Defect(rows, counts, f"{note}at most {largest} together")


def find_leaks(table: pd.DataFrame, links: Links, *, given_split: bool) -> Defect:
    """Linked images on several sides of the split that comes with the data."""
    side = table["split"]
    if side.isna().all():
        return Defect([], {"groups": 0, "images": 0}, "the data come with no split")
    if given_split:  # all that is not given as val or test trains
        side = side.fillna("train")
    crossing = {name: _crossing(pairs, side) for name, pairs in links.items()}
    together = _crossing(np.concatenate([*links.values()]), side)
    counts = {"groups": len(together), "images": sum(map(len, together))}
    counts |= {name: len(rows) for name, rows in crossing.items()}
    if not together:
        return Defect([], counts, "no link crosses the given split")
    by = ", ".join(f"{len(rows)} by {WORDS[name]}" for name, rows in crossing.items() if rows)
    note = f"{_count(len(together), 'group')} of linked images across the given split: {by}"
    if not given_split:
        note += "; the redrawn splits keep linked images together, so nothing needs dropping"
    return Defect(together, counts, note)


def tally(values: "pd.Series[str]") -> dict[str, int]:
    """How often each value is there, the most frequent first, then by name."""
    counts = values.value_counts()
    names = sorted(counts.index, key=lambda name: (-counts[name], name))
    return {str(name): int(counts[name]) for name in names}


def _crossing(pairs: NDArray[np.int64], side: "pd.Series[str]") -> list[NDArray[np.int64]]:
    groups = _groups(components(len(side), pairs))
    sides = side.to_numpy()
    return [group for group in groups if len({s for s in sides[group] if not pd.isna(s)}) > 1]


def _exact_groups(links: Links, n: int) -> list[NDArray[np.int64]]:
    return _groups(components(n, links["file"], links["pixels"]))


def _groups(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows of each component of two or more, in order of appearance."""
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [group for group in groups if len(group) > 1]


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
