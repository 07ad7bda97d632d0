"""Group-safe, stratified division of the images: sealed test, calibration slice, folds."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.config import SplitsConfig
from search.errors import SplitError

TEST, CALIBRATION, TRAIN = "test", "calibration", "train"
Part = tuple[str, int]


def assign_groups(
    labels: NDArray[np.int64], groups: NDArray[np.int64], shares: Sequence[float], *, seed: int
) -> NDArray[np.int64]:
    """Give every group to one part so that each part gets its share of each class.

    Groups come in the order of their size and rarity (largest first; ties drawn by the seed), and
    each goes to the part that is furthest below its due in the classes the group holds.

    Args:
        labels: class indices, (n_images,).
        groups: group ids, (n_images,).
        shares: of each part, summing to 1.
        seed: orders groups of equal shape.

    Returns:
        part index of every image, (n_images,).

    Source: the greedy rule of scikit-learn's StratifiedGroupKFold, with unequal shares.
    """
    n_classes = int(labels.max()) + 1
    names, index = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), n_classes))
    np.add.at(counts, (index, labels), 1)
    relative = counts / np.maximum(counts.sum(axis=0), 1)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-relative[order].std(axis=1), kind="stable")]
    due = np.asarray(shares)[:, None] * np.ones(n_classes)
    given = np.zeros_like(due)
    part_of = np.zeros(len(names), np.int64)
    for group in order:
        # The need of a part: how much of its due in this group's classes is still open.
        need = ((due - given) / due) @ relative[group]
        part = int(np.argmax(need))
        given[part] += relative[group]
        part_of[group] = part
    return part_of[index]


def make_splits(
    table: pd.DataFrame,
    groups: NDArray[np.int64],
    config: SplitsConfig,
    *,
    classes: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """Divide the images of an audited table.

    Args:
        table: dataset table, (n_images) rows.
        groups: linked images share a group id, (n_images,).

    Returns:
        (n_images) rows with columns image, label, group, part (test, calibration, train) and
        fold: the fold an image validates, −1 where it never does.

    Raises:
        SplitError: a class has fewer groups than there are parts, or the given split lacks a test.
    """
    labels = table["label"].to_numpy(np.int64)
    fixed = _given_parts(table, groups) if config.given else {}
    shares, names = _parts(config, fixed)
    splits = table[["image", "label"]].assign(group=groups, part=TRAIN, fold=-1)
    open_rows = np.setdiff1d(np.arange(len(table)), np.concatenate([[], *fixed.values()]))
    _refuse_thin_classes(labels[open_rows], groups[open_rows], len(shares), classes)
    drawn = assign_groups(labels[open_rows], groups[open_rows], shares, seed=seed)
    rows = fixed | {name: open_rows[drawn == i] for i, name in enumerate(names)}
    for (part, fold), where in rows.items():
        splits.loc[where, ["part", "fold"]] = [part, fold]
    return splits


def splits_hash(splits: pd.DataFrame) -> str:
    """SHA-256 of the table's rows in the order of their images."""
    rows = splits.sort_values("image")[["image", "label", "part", "fold"]]
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()


def fold_rows(splits: pd.DataFrame, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers that train and that validate in one fold; no test, no calibration."""
    searchable = (splits["part"] == TRAIN).to_numpy()
    validates = (splits["fold"] == fold).to_numpy()
    return np.flatnonzero(searchable & ~validates), np.flatnonzero(searchable & validates)


def _parts(config: SplitsConfig, fixed: Mapping[Part, object]) -> tuple[list[float], list[Part]]:
    """Share and name of each part that groups are drawn into."""
    test = 0.0 if (TEST, -1) in fixed else config.test
    rest = 1 - test - config.calibration
    parts: dict[Part, float] = {(TEST, -1): test, (CALIBRATION, -1): config.calibration}
    if (TRAIN, 0) in fixed:
        parts[TRAIN, -1] = rest
    elif config.folds == 1:
        parts |= {(TRAIN, 0): rest * config.holdout, (TRAIN, -1): rest * (1 - config.holdout)}
    else:
        parts |= {(TRAIN, fold): rest / config.folds for fold in range(config.folds)}
    used = {name: share for name, share in parts.items() if share > 0}
    return list(used.values()), list(used)


def _given_parts(table: pd.DataFrame, groups: NDArray[np.int64]) -> dict[Part, NDArray[np.int64]]:
    """Rows that the data's own split fixes: its test is sealed, its val is the one holdout."""
    given = table["split"].to_numpy()
    fixed: dict[Part, NDArray[np.int64]] = {}
    for name, part in (("test", (TEST, -1)), ("val", (TRAIN, 0))):
        inside = given == name
        if not inside.any():
            continue
        torn = np.intersect1d(groups[inside], groups[~inside])
        if len(torn):
            raise SplitError(
                f"{len(torn)} groups of linked images stand both inside and outside the given "
                f"{name} split, the first holds {table['image'].to_numpy()[groups == torn[0]][0]}; "
                "set audit.leaks to drop, or splits.given to false"
            )
        fixed[part] = np.flatnonzero(inside)
    if (TEST, -1) not in fixed:
        raise SplitError("splits.given is set but no image is given as test; set it to false")
    return fixed


def _refuse_thin_classes(
    labels: NDArray[np.int64], groups: NDArray[np.int64], n_parts: int, classes: Sequence[str]
) -> None:
    for index, name in enumerate(classes):
        n_groups = len(np.unique(groups[labels == index]))
        if n_groups < n_parts:
            raise SplitError(
                f"class {name!r} has {n_groups} groups of linked images, but the splits need one "
                f"in each of {n_parts} parts; lower splits.folds, or join the class with another "
                "under dataset.classes"
            )
