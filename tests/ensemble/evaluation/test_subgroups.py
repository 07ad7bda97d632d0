"""Metadata becomes subgroups, and each gets its own numbers."""

import math

import numpy as np
import pandas as pd
import pytest

from ensemble.evaluation.subgroups import bands, subgroup_estimates, usable_columns
from search.errors import ConfigError
from search.training.metrics import evaluate_probs
from tests.points import a_point

TABLE = pd.DataFrame(
    {
        "image": ["a", "b", "c", "d"],
        "lesion": ["1", "1", "2", "3"],
        "label": [0, 1, 0, 1],
        "source": ["one", "one", "one", "one"],
        "sex": ["male", None, "female", "male"],
        "age": [25.0, 45.0, math.nan, 80.0],
        "hospital": ["x", "x", "x", None],
    }
)


def test_ages_fall_into_bands_that_hold_their_lower_ends() -> None:
    ages = [0, 29.9, 30, 44, 45, 59, 60, 74, 75, 101]
    assert bands(ages) == [
        *["<30"] * 2, *["30-44"] * 2, *["45-59"] * 2, *["60-74"] * 2, *["75+"] * 2,
    ]  # fmt: skip


def test_text_stays_and_what_is_missing_is_none() -> None:
    assert bands(["back", None, " face ", "", math.nan]) == ["back", None, "face", None, None]


def test_small_numbers_are_codes_and_truths_are_words() -> None:
    assert bands([1.0, 6.0, None]) == ["1", "6", None]
    assert bands([True, False]) == ["True", "False"]


def test_ages_written_as_text_are_ages() -> None:
    assert bands(["35", "80", None]) == ["30-44", "75+", None]


def test_a_column_without_any_value_is_all_missing() -> None:
    assert bands([None, math.nan]) == [None, None]


def test_columns_with_few_values_are_taken_and_links_are_not() -> None:
    found = usable_columns(TABLE, None)
    assert found == {
        "sex": ["male", "unknown", "female", "male"],
        "age": ["<30", "45-59", "unknown", "75+"],
    }


def test_more_than_one_source_is_a_column() -> None:
    table = TABLE.assign(source=["one", "two", "one", "two"])
    assert "source" in usable_columns(table, None)


def test_a_column_of_more_than_15_values_is_left_out_unless_wanted() -> None:
    table = pd.DataFrame({"site": [f"site {i}" for i in range(16)]})
    assert usable_columns(table, None) == {}
    assert list(usable_columns(table, ["site"])) == ["site"]
    assert list(usable_columns(table.head(15), None)) == ["site"]


def test_only_wanted_columns_are_taken() -> None:
    assert list(usable_columns(TABLE, ["age"])) == ["age"]
    assert usable_columns(TABLE, []) == {}


@pytest.mark.parametrize("name", ["skin", "lesion"])
def test_a_wanted_column_that_is_no_metadata_is_refused(name: str) -> None:
    rule = rf"no metadata column '{name}'; the data has source, sex, age, hospital\. "
    with pytest.raises(ConfigError, match=rule):
        usable_columns(TABLE, [name])


POINT = a_point(threshold=0.4)
SEX = ["man"] * 40 + ["woman"] * 30 + ["unknown"] * 12 + ["other"] * 9


def case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    score = rng.uniform(size=len(SEX))
    labels = (rng.uniform(size=len(SEX)) < score).astype(np.int64)
    return np.stack([1 - score, score], axis=1), labels


def test_each_subgroup_has_the_numbers_of_its_own_images() -> None:
    probs, labels = case()
    found = subgroup_estimates(
        probs,
        labels,
        np.arange(91),
        {"sex": SEX},
        positive=1,
        decided=(POINT, probs[:, 1]),
        replicates=60,
    )
    # Ten images at least, the unknown last.
    assert [(s.column, s.value, s.n) for s in found] == [
        ("sex", "man", 40), ("sex", "woman", 30), ("sex", "unknown", 12),
    ]  # fmt: skip
    rows = slice(40, 70)
    expected = evaluate_probs(probs[rows], labels[rows], positive=1)
    woman = found[1]
    assert woman.n_positive == labels[rows].sum()
    for name in ("auroc", "nll", "brier", "ece"):
        assert woman.metrics[name].value == pytest.approx(expected[name])
    called = probs[rows, 1] >= 0.4
    assert woman.metrics["sensitivity"].value == pytest.approx(called[labels[rows] == 1].mean())
    assert woman.metrics["specificity"].value == pytest.approx(1 - called[labels[rows] == 0].mean())
    assert woman.metrics["sensitivity"].low is not None


def test_without_a_threshold_there_is_no_sensitivity() -> None:
    probs, labels = case()
    found = subgroup_estimates(probs, labels, np.arange(91), {"sex": SEX}, replicates=20)
    assert set(found[0].metrics) == {"auroc", "nll", "brier", "ece"}
    assert found[0].n_positive is None


def test_bands_come_by_age() -> None:
    probs, labels = case()
    values = ["75+"] * 30 + ["<30"] * 31 + ["30-44"] * 30
    found = subgroup_estimates(probs, labels, np.arange(91), {"age": values}, replicates=20)
    assert [s.value for s in found] == ["<30", "30-44", "75+"]


def test_a_column_of_another_length_is_refused() -> None:
    probs, labels = case()
    with pytest.raises(ValueError, match=r"column 'sex' and groups must be one an image: 90 and"):
        subgroup_estimates(probs, labels, np.arange(91), {"sex": SEX[:90]})
