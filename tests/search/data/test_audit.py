"""What the policies do about findings, and which images are grouped."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.config import AuditConfig
from search.data.audit import apply_policies, link_groups
from search.errors import AuditError
from tests.search.data.audit_tables import (
    MELANOMA,
    TEST,
    TRAIN,
    VAL,
    audit_of,
    facts_of,
    kept_of,
    same_file,
    table_of,
)


def test_of_duplicates_the_one_with_most_metadata_stays_then_the_first_by_key() -> None:
    table = table_of({"image": "s/9.jpg"}, {}, {}, {"sex": "male"})
    facts = facts_of(table, **same_file(0, 1, 2))
    assert kept_of(table, facts, duplicates="drop") == [1, 3]
    table = table_of({}, {"sex": "male"}, {"sex": "male"})
    assert kept_of(table, facts_of(table, **same_file(0, 1, 2)), duplicates="drop") == [1]


def test_of_duplicates_across_a_given_split_the_test_s_copy_stays() -> None:
    table = table_of(TRAIN | {"sex": "male"}, TEST, VAL, TRAIN)
    facts = facts_of(table, **same_file(0, 1, 2))
    assert kept_of(table, facts, duplicates="drop", given_split=True) == [1, 3]
    assert kept_of(table, facts, duplicates="drop") == [0, 3]


def test_kept_conflicts_survive_the_dropping_of_duplicates_once_a_class() -> None:
    table = table_of({}, MELANOMA, MELANOMA)
    assert kept_of(table, facts_of(table, **same_file(0, 1, 2)), duplicates="drop") == [0, 1]


def test_dropped_near_duplicates_take_their_copies_along() -> None:
    table = table_of({}, {}, {"sex": "male"}, {"sex": "male"})
    facts = facts_of(table, **same_file(0, 1))
    facts.loc[2, "phash"] = "0" * 61 + "fff"
    assert kept_of(table, facts, near_duplicates="drop") == [2, 3]
    assert kept_of(table, facts, near_duplicates="drop", duplicates="drop") == [2, 3]


def test_leaks_reach_through_a_chain_of_links() -> None:
    table = table_of(
        TEST | {"lesion": "L"},
        TRAIN | {"lesion": "L", "patient": "P"},
        TRAIN | {"patient": "P"},
        {},
    )
    assert kept_of(table, facts_of(table), leaks="drop", given_split=True) == [0, 3]


def test_of_a_leak_between_train_and_val_the_val_side_stays() -> None:
    table = table_of(TRAIN | {"lesion": "L"}, VAL | {"lesion": "L"}, TEST)
    assert kept_of(table, facts_of(table), leaks="drop", given_split=True) == [1, 2]


def test_images_without_a_split_train_where_a_given_split_is_used() -> None:
    table = table_of({"lesion": "L"}, TEST | {"lesion": "L"})
    assert kept_of(table, facts_of(table), leaks="drop", given_split=True) == [1]
    assert audit_of(table, facts_of(table)).counts["leaks"]["groups"] == 0


@pytest.mark.parametrize("policy", ["drop", "error"])
def test_leaks_do_no_harm_where_splits_are_drawn_anew(policy: str) -> None:
    table = table_of(TRAIN | {"lesion": "L"}, TEST | {"lesion": "L"})
    assert "nothing needs dropping" in audit_of(table, facts_of(table)).finding("leaks").note
    assert kept_of(table, facts_of(table), leaks=policy) == [0, 1]


def test_an_error_names_the_count_an_example_and_the_next_step() -> None:
    table = table_of({}, MELANOMA)
    facts = facts_of(table, **same_file(0, 1))
    rule = (
        r"^audit: label_conflicts: 1 picture under more than one label, 1 of them under more than "
        r"one class, for example s/0\.jpg and s/1\.jpg; "
        r"set audit\.label_conflicts: drop or keep in the config$"
    )
    with pytest.raises(AuditError, match=rule):
        kept_of(table, facts, label_conflicts="error")


def test_all_findings_that_stop_are_named_in_one_line() -> None:
    table = table_of(TRAIN, TEST | MELANOMA)
    facts = facts_of(table, **same_file(0, 1))
    with pytest.raises(AuditError, match=r"audit: label_conflicts: .*; likewise audit\.leaks: .*"):
        kept_of(table, facts, label_conflicts="error", leaks="error", given_split=True)


def test_policies_that_leave_nothing_are_refused() -> None:
    table = table_of({}, {})
    facts = facts_of(table, width={0: 5, 1: 5})
    with pytest.raises(AuditError, match=r"drop all 2 images; set some audit policy to keep"):
        kept_of(table, facts, tiny="drop")


def test_groups_unite_every_kind_of_tie() -> None:
    table = table_of(
        {"image_id": "x"}, {"image_id": "x"}, {"lesion": "L"}, {"lesion": "L", "patient": "P"},
        {"patient": "P"}, {}, {}, {}, {},
    )  # fmt: skip
    facts = facts_of(table, **same_file(5, 6))
    facts.loc[7, "phash"] = "0" * 63 + "1"
    groups = link_groups(table, facts, AuditConfig(near_distance=12))
    assert groups.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3]


ROW = st.fixed_dictionaries(
    {
        "split": st.sampled_from([None, "train", "val", "test"]),
        "lesion": st.sampled_from([None, "L", "M"]),
        "patient": st.sampled_from([None, "P", "Q"]),
        "picture": st.sampled_from(["a", "b", "c", None]),
        "label": st.sampled_from([0, 1]),
    }
)


@settings(max_examples=50, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=8), st.sampled_from(["keep", "drop"]))
def test_after_dropping_leaks_no_group_stands_on_two_sides(
    rows: list[dict[str, Any]], duplicates: str
) -> None:
    pictures = {i: row["picture"] for i, row in enumerate(rows) if row["picture"]}
    table = table_of(*[{k: v for k, v in row.items() if k != "picture"} for row in rows])
    facts = facts_of(table, file_digest=pictures, pixel_digest=pictures)
    audit = audit_of(table, facts, given_split=True, leaks="drop", duplicates=duplicates)
    kept = apply_policies(table, audit, given_split=True)
    sides = kept["split"].fillna("train").to_numpy()
    groups = link_groups(kept, facts, AuditConfig(near_distance=12))
    assert all(len(set(sides[groups == group])) == 1 for group in np.unique(groups))
    lost_tests = (table["split"] == "test").sum() - (kept["split"] == "test").sum()
    assert duplicates == "drop" or lost_tests == 0
