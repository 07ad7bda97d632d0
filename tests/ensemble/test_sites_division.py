"""Nobody who is linked to the left-out site trains, and nobody is forgotten."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensemble.evaluation.subgroups import UNKNOWN
from ensemble.sites.division import (
    Division,
    choose_column,
    divide_site,
    division_problem,
    site_names,
)
from ensemble.sites.folder import file_name
from search.errors import StudyError

Ints = NDArray[np.int64]
SITES = ["north", "south", UNKNOWN]


@st.composite
def image_sets(draw: st.DrawFn) -> tuple[Ints, Ints, list[str]]:
    """Labels, groups and sites of 2 to 60 images, with groups that span sites."""
    n = draw(st.integers(2, 60))
    labels = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    groups = draw(st.lists(st.integers(0, n), min_size=n, max_size=n))
    sites = draw(st.lists(st.sampled_from(SITES), min_size=n, max_size=n))
    sites[0] = "north"
    return np.array(labels), np.array(groups), sites


@given(image_sets(), st.integers(0, 5))
def test_linked_images_are_never_on_two_sides(
    images: tuple[Ints, Ints, list[str]], seed: int
) -> None:
    labels, groups, sites = images
    d = divide_site(labels, groups, sites, "north", share=0.3, seed=seed)
    sides = [{*groups[rows].tolist()} for rows in (d.train, d.held_back, d.left_out)]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]
    assert {*groups[d.dropped].tolist()} <= sides[2]


@given(image_sets())
def test_every_image_has_one_place_and_only_the_sites_own_are_left_out(
    images: tuple[Ints, Ints, list[str]],
) -> None:
    labels, groups, sites = images
    d = divide_site(labels, groups, sites, "north", share=0.3, seed=0)
    rows = np.concatenate([d.train, d.held_back, d.left_out, d.dropped])
    assert sorted(rows.tolist()) == list(range(len(labels)))
    assert d.left_out.tolist() == [i for i, site in enumerate(sites) if site == "north"]


@given(image_sets())
def test_unknown_sites_are_always_among_the_others_unless_linked(
    images: tuple[Ints, Ints, list[str]],
) -> None:
    labels, groups, sites = images
    d = divide_site(labels, groups, sites, "north", share=0.3, seed=0)
    others = {*d.train.tolist(), *d.held_back.tolist()}
    linked = {*groups[d.left_out].tolist()}
    unknown = [i for i, site in enumerate(sites) if site == UNKNOWN]
    assert all((i in others) == (groups[i] not in linked) for i in unknown)


def test_about_the_share_of_each_class_is_held_back() -> None:
    labels = np.arange(200) % 4 // 3  # a quarter positive
    d = divide_site(labels, np.arange(200), ["a", "b"] * 100, "a", share=0.3, seed=1)
    assert len(d.held_back) == pytest.approx(30, abs=2)
    assert labels[d.held_back].sum() == pytest.approx(15, abs=2)


def table(counts: dict[object, tuple[int, int]], name: str = "site") -> pd.DataFrame:
    """Images of so many negatives and positives a site, nothing linked."""
    rows = [
        (value, int(i < positives))
        for value, (negatives, positives) in counts.items()
        for i in range(negatives + positives)
    ]
    found = pd.DataFrame(rows, columns=[name, "label"])
    return found.assign(group=range(len(rows)), source="one", age=50.0, lesion="x")


COUNTS: dict[object, tuple[int, int]] = {
    "a": (20, 10), "b": (30, 5), "few": (3, 3), "no positive": (40, 0), None: (30, 30),
}  # fmt: skip


def test_the_site_column_is_taken_where_there_is_one_source() -> None:
    found = choose_column(table(COUNTS), None, positive=1, min_cases=20)
    assert (found.name, list(found.left_out)) == ("site", ["a", "b"])
    assert found.kept == {
        "few": "6 images, fewer than 20",
        "no positive": "40 images, but of a class fewer than 5 that are not linked",
    }
    assert list(found.sites).count(UNKNOWN) == 60


def test_several_sources_come_before_sites() -> None:
    images = table(COUNTS)
    images["source"] = ["one", "two"] * (len(images) // 2) + ["one"] * (len(images) % 2)
    assert choose_column(images, None, positive=1, min_cases=20).name == "source"
    assert choose_column(images, "site", positive=1, min_cases=20).name == "site"


def test_linked_positives_count_once() -> None:
    images = table({"a": (20, 10), "b": (20, 10)})
    images.loc[(images["site"] == "b") & (images["label"] == 1), "group"] = 1000
    with pytest.raises(StudyError, match=r"site has a 30 \(10 positive\), b 30 \(10 positive\)"):
        choose_column(images, None, positive=1, min_cases=20)


def test_too_few_sites_are_refused_with_counts_and_columns() -> None:
    images = table({"a": (20, 10), "b": (4, 4)})
    line = (
        r"^leaving sites out takes two with 20 images and 5 groups of linked images of each "
        r"class: source has one 38 \(14 positive\); site has a 30 \(10 positive\), b 8 "
        r"\(4 positive\). Lower --min-cases, or name another column by --by: there are "
        r"site, source, age$"
    )
    with pytest.raises(StudyError, match=line):
        choose_column(images, None, positive=1, min_cases=20)
    with pytest.raises(StudyError, match=r"class: site has a 30"):
        choose_column(images, "site", positive=1, min_cases=20)


@pytest.mark.parametrize("name", ["hospital", "label", "lesion"])
def test_a_column_that_is_no_metadata_is_refused(name: str) -> None:
    with pytest.raises(StudyError, match=rf"^--by {name}: .* there are site, source, age\."):
        choose_column(table(COUNTS), name, positive=1, min_cases=20)


def test_sites_are_text_whatever_the_column_holds() -> None:
    assert site_names([1.0, 40.0, float("nan"), None, " ", " x "], "site") == [
        *("1", "40", UNKNOWN, UNKNOWN, UNKNOWN, "x")
    ]
    assert site_names([20.0, 80.0, None], "age") == ["<30", "75+", UNKNOWN]


def test_others_that_cannot_teach_or_certify_are_told() -> None:
    labels, groups = np.array([0] * 12 + [1] * 12), np.arange(24)
    half = np.arange(24) % 2 == 0
    good = Division(groups[half], groups[~half], groups[:0], groups[:0])

    def problem(division: Division) -> str | None:
        return division_problem(
            division, labels, groups, classes=["benign", "malignant"], positive=1
        )

    assert problem(good) is None
    without = Division(groups[:12], groups[12:], groups[:0], groups[:0])
    assert problem(without) == "the others have no image of class 'malignant' to train on"
    few = Division(groups[half], groups[1:17:2], groups[:0], groups[:0])
    assert problem(few) == "the others' held-back part has fewer than 5 groups of a class"


def test_file_names_are_safe_and_never_the_same() -> None:
    names = ["head/neck", "head_neck", "Head_neck", "../..", "", "ü", ".", "a" * 300, "b"]
    files = [file_name(name) for name in names]
    assert len({*files}) == len(names)
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in files)
    assert (files[1], files[-1]) == ("head_neck", "b")
    assert max(map(len, files)) <= 60
