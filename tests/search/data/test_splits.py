"""Splits never share a group, keep the classes' shares, and depend on nothing but the seed."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from search.config import SplitsConfig
from search.data.splits import assign_groups, fold_rows, make_splits, splits_hash
from search.errors import SplitError

CLASSES = ["benign", "malignant"]


def a_table(labels: list[int], split: Sequence[str | None] | None = None) -> pd.DataFrame:
    n = len(labels)
    images = [f"{i:04d}" for i in range(n)]
    return pd.DataFrame({"image": images, "label": labels, "split": list(split or [None] * n)})


def a_division(
    labels: list[int], groups: list[int], config: SplitsConfig, *, seed: int = 0
) -> pd.DataFrame:
    return make_splits(a_table(labels), np.array(groups), config, classes=CLASSES, seed=seed)


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """At least twelve single images of either class, and some larger, mixed groups."""
    labels, groups = [0, 1] * 12, list(range(24))
    for group in range(24, 24 + draw(st.integers(0, 12))):
        size = draw(st.integers(1, 4))
        labels += draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
        groups += [group] * size
    return labels, groups


CONFIGS = st.builds(
    SplitsConfig,
    test=st.sampled_from([0.0, 0.2, 0.3]),
    calibration=st.sampled_from([0.0, 0.1, 0.2]),
    folds=st.integers(1, 5),
)


@given(grouped(), CONFIGS, st.integers(0, 5))
def test_no_group_stands_in_two_parts(
    case: tuple[list[int], list[int]], config: SplitsConfig, seed: int
) -> None:
    splits = a_division(*case, config, seed=seed)
    assert splits.groupby("group")[["part", "fold"]].nunique().max().max() == 1


@given(grouped(), CONFIGS, st.integers(0, 5))
def test_every_part_has_every_class(
    case: tuple[list[int], list[int]], config: SplitsConfig, seed: int
) -> None:
    splits = a_division(*case, config, seed=seed)
    assert (splits.groupby(["part", "fold"])["label"].nunique() == 2).all()


@given(grouped(), CONFIGS, st.integers(0, 5))
def test_the_seed_alone_decides(
    case: tuple[list[int], list[int]], config: SplitsConfig, seed: int
) -> None:
    first, second = (a_division(*case, config, seed=seed) for _ in range(2))
    assert splits_hash(first) == splits_hash(second)


def test_another_seed_divides_otherwise() -> None:
    labels, groups = [0, 1] * 30, list(range(60))
    hashes = {splits_hash(a_division(labels, groups, SplitsConfig(), seed=s)) for s in range(4)}
    assert len(hashes) == 4


def test_shares_are_met_in_every_class() -> None:
    labels = [0] * 400 + [1] * 100
    splits = a_division(labels, list(range(500)), SplitsConfig(test=0.2, calibration=0.1, folds=1))
    counts = splits.groupby(["part", "fold"])["label"].agg(["size", "sum"])
    assert counts.to_dict("index") == {
        ("test", -1): {"size": 100, "sum": 20},
        ("calibration", -1): {"size": 50, "sum": 10},
        ("train", 0): {"size": 70, "sum": 14},
        ("train", -1): {"size": 280, "sum": 56},
    }


def test_large_groups_do_not_upset_the_shares() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(150), rng.integers(1, 8, 150))
    labels: NDArray[np.int64] = (np.arange(150) % 4 == 0).astype(np.int64)[groups]
    part = assign_groups(labels, groups, [0.2, 0.8], seed=0)
    for label in (0, 1):
        assert (part[labels == label] == 0).mean() == pytest.approx(0.2, abs=0.03)


def test_folds_cover_the_training_images_once() -> None:
    splits = a_division([0, 1] * 40, list(range(80)), SplitsConfig(folds=4))
    validated = np.concatenate([fold_rows(splits, fold)[1] for fold in range(4)])
    assert sorted(validated) == np.flatnonzero(splits["part"] == "train").tolist()
    for fold in range(4):
        train, val = fold_rows(splits, fold)
        assert not set(train) & set(val)
        assert len(train) + len(val) == len(validated)


def test_the_datas_own_test_and_val_are_kept() -> None:
    given_split = ["test"] * 10 + ["val"] * 10 + ["train"] * 20
    splits = make_splits(
        a_table([0, 1] * 20, given_split),
        np.arange(40),
        SplitsConfig(given=True, calibration=0.2),
        classes=CLASSES,
        seed=0,
    )
    assert (splits["part"][:10] == "test").all()
    assert (splits["fold"][10:20] == 0).all()
    assert set(splits["part"][20:]) == {"calibration", "train"}


def test_a_group_torn_by_the_given_split_is_refused() -> None:
    table = a_table([0, 1] * 20, ["test"] * 10 + ["train"] * 30)
    groups = np.arange(40)
    groups[12] = groups[3]
    with pytest.raises(SplitError, match=r"1 groups .* the first holds 0003; set audit.leaks"):
        make_splits(table, groups, SplitsConfig(given=True), classes=CLASSES, seed=0)


def test_a_given_split_without_a_test_is_refused() -> None:
    table = a_table([0, 1] * 20, ["train"] * 40)
    with pytest.raises(SplitError, match="no image is given as test"):
        make_splits(table, np.arange(40), SplitsConfig(given=True), classes=CLASSES, seed=0)


def test_a_class_with_fewer_groups_than_parts_is_named() -> None:
    labels, groups = [0] * 20 + [1] * 9, [*range(20), *[20] * 6, 21, 22, 23]
    with pytest.raises(SplitError, match=r"class 'malignant' has 4 groups .* each of 6 parts"):
        a_division(labels, groups, SplitsConfig(folds=4))
