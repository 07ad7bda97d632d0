"""What is found in a dataset, on tables and facts made by hand."""

import json

import pytest

from search.config import AuditConfig
from search.data.audit import link_groups
from tests.search.data.audit_tables import (
    KEEP,
    MELANOMA,
    TEST,
    TRAIN,
    audit_of,
    facts_of,
    kept_of,
    same_file,
    table_of,
)


def test_clean_data_have_an_empty_finding_of_every_kind() -> None:
    table = table_of({}, {}, MELANOMA)
    audit = audit_of(table, facts_of(table))
    assert {finding.kind for finding in audit.findings} == set(KEEP)
    assert all(not finding.groups for finding in audit.findings)


def test_images_are_counted_by_raw_label_and_by_class() -> None:
    table = table_of({}, MELANOMA, {"raw_label": "keratosis"})
    audit = audit_of(table, facts_of(table))
    assert audit.class_balance == {
        "raw": {"keratosis": 1, "melanoma": 1, "nevus": 1},
        "mapped": {"benign": 2, "malignant": 1},
    }
    assert audit.n_images == 3


def test_damaged_files_are_counted_by_problem_and_dropped() -> None:
    table = table_of({}, {}, {})
    facts = facts_of(
        table,
        problem={0: "truncated", 2: "zero-byte"},
        pixel_digest={0: None, 2: None},
        phash={0: None, 2: None},
    )
    audit = audit_of(table, facts)
    assert audit.finding("damaged").groups == (("s/0.jpg",), ("s/2.jpg",))
    assert audit.counts["damaged"] == {"images": 2, "truncated": 1, "zero-byte": 1}
    assert kept_of(table, facts, damaged="drop") == [1]


def test_empty_files_are_damaged_and_not_duplicates_of_each_other() -> None:
    table = table_of({}, {}, {})
    nothing = {0: None, 1: None}
    facts = facts_of(
        table,
        problem={0: "zero-byte", 1: "zero-byte"},
        file_digest={0: "empty", 1: "empty"},
        pixel_digest=nothing,
        phash=nothing,
    )
    assert audit_of(table, facts).counts["duplicates"]["groups"] == 0


def test_tiny_is_below_the_limit_on_either_side_and_not_at_it() -> None:
    table = table_of({}, {}, {}, {})
    facts = facts_of(table, width={0: 32, 1: 31, 3: 0}, height={2: 10, 3: 0})
    audit = audit_of(table, facts)
    assert audit.finding("tiny").groups == (("s/1.jpg",), ("s/2.jpg",))
    assert "down to 10" in audit.finding("tiny").note
    assert kept_of(table, facts, tiny="drop") == [0, 3]


def test_other_modes_than_rgb_are_counted() -> None:
    table = table_of({}, {}, {})
    audit = audit_of(table, facts_of(table, mode={0: "L", 1: None}))
    assert audit.counts["non_rgb"] == {"images": 1, "L": 1}


def test_a_column_that_is_blank_throughout_is_not_missing() -> None:
    table = table_of({"age": 40.0}, {"age": None}, {"age": float("nan")})
    audit = audit_of(table, facts_of(table))
    assert audit.finding("missing_metadata").groups == (("s/1.jpg",), ("s/2.jpg",))
    assert audit.counts["missing_metadata"] == {
        "images": 2, "lesion": 1.0, "patient": 1.0, "age": 0.6667,
    }  # fmt: skip
    assert kept_of(table, facts_of(table), missing_metadata="drop") == [0]


def test_duplicates_are_found_by_file_and_by_pixels() -> None:
    table = table_of({}, {}, {}, {})
    facts = facts_of(
        table, file_digest={0: "f", 1: "f"}, pixel_digest={0: "p", 1: "p", 2: "q", 3: "q"}
    )
    audit = audit_of(table, facts)
    assert audit.finding("duplicates").groups == (("s/0.jpg", "s/1.jpg"), ("s/2.jpg", "s/3.jpg"))
    counts = {"groups": 2, "by_file": 1, "by_pixels": 2, "images": 4, "extra": 2}
    assert audit.counts["duplicates"] == counts


def test_conflicts_under_two_classes_are_told_from_those_within_one() -> None:
    table = table_of({}, MELANOMA, {}, {"raw_label": "keratosis"}, {})
    facts = facts_of(table, pixel_digest={0: "p", 1: "p", 2: "q", 3: "q"})
    audit = audit_of(table, facts)
    assert audit.counts["label_conflicts"] == {"groups": 2, "class_groups": 1, "images": 4}
    assert kept_of(table, facts, label_conflicts="drop") == [2, 4]


def test_near_duplicates_list_one_copy_of_each_picture() -> None:
    table = table_of({}, {}, {}, {})
    facts = facts_of(table, **same_file(0, 1))
    facts.loc[2, "phash"] = "0" * 61 + "fff"
    audit = audit_of(table, facts)
    assert audit.finding("near_duplicates").groups == (("s/0.jpg", "s/2.jpg"),)
    assert audit.counts["near_duplicates"] == {"groups": 1, "images": 2, "largest": 2}
    assert audit_of(table, facts, near_distance=11).counts["near_duplicates"]["groups"] == 0


@pytest.mark.parametrize("tie", ["image_id", "lesion", "patient"])
def test_a_shared_id_across_the_given_split_is_a_leak(tie: str) -> None:
    table = table_of(TRAIN | {tie: "x"}, TEST | {tie: "x"}, TRAIN | {tie: "y"}, TRAIN | {tie: "y"})
    audit = audit_of(table, facts_of(table), given_split=True)
    assert audit.finding("leaks").groups == (("s/0.jpg", "s/1.jpg"),)
    assert audit.counts["leaks"][tie] == 1
    assert kept_of(table, facts_of(table), leaks="drop", given_split=True) == [1, 2, 3]


def test_the_same_picture_across_the_given_split_counts_under_file_and_pixels() -> None:
    table = table_of(TRAIN, TEST)
    counts = audit_of(table, facts_of(table, **same_file(0, 1)), given_split=True).counts["leaks"]
    assert counts == {
        "groups": 1, "images": 2, "image_id": 0, "file": 1, "pixels": 1,
        "near": 0, "lesion": 0, "patient": 0,
    }  # fmt: skip


def test_facts_may_come_in_any_order_and_for_more_images() -> None:
    table = table_of({"lesion": "L"}, {}, {"lesion": "L"})
    facts = facts_of(table, width={1: 5}).iloc[::-1]
    assert audit_of(table, facts).finding("tiny").groups == (("s/1.jpg",),)
    assert link_groups(table.drop(index=1), facts, AuditConfig()).tolist() == [0, 0]


def test_the_digest_depends_on_contents_and_labels_and_not_on_order_or_classes() -> None:
    table = table_of({}, {})
    facts = facts_of(table)
    digest = audit_of(table, facts).digest
    assert audit_of(table.iloc[::-1], facts).digest == digest
    assert audit_of(table.assign(label=1), facts).digest == digest
    assert audit_of(table.assign(raw_label="other"), facts).digest != digest
    assert audit_of(table, facts_of(table, file_digest={0: "new"})).digest != digest


def test_the_audit_is_json() -> None:
    table = table_of({}, MELANOMA | {"age": 3.0})
    written = json.loads(json.dumps(audit_of(table, facts_of(table, **same_file(0, 1))).to_json()))
    assert written["n_images"] == 2
    conflict = next(f for f in written["findings"] if f["kind"] == "label_conflicts")
    assert conflict["groups"] == [["s/0.jpg", "s/1.jpg"]]
