"""A study folder gives back what it was given, and refuses what it does not know."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from search.atomic import replacing, write_json
from search.errors import StudyError
from search.params import Params
from search.records import (
    StudyFolder,
    StudyHead,
    TrialRecord,
    read_table,
    write_table,
)
from search.sealed import count_openings, open_sealed_test

HEAD = StudyHead(
    name="tiny",
    created="2026-01-01T00:00:00+00:00",
    classes=["benign", "malignant"],
    positive="malignant",
    objective="nll",
    seed=0,
    data_digest="d",
    splits_hash="s",
    n_images={"train": 3},
    versions={"python": "3"},
)


def test_the_head_round_trips(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    study.write_head(HEAD)
    assert study.head() == HEAD


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study here; run consilium search first"):
        StudyFolder(tmp_path).head()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    study.write_head(HEAD.model_copy(update={"schema_version": 99}))
    with pytest.raises(StudyError, match=r"study.json: schema 99 is newer than 2, .*; update"):
        study.head()


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": "x"}'])
def test_a_damaged_head_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(StudyError, match=r"study.json: damaged"):
        StudyFolder(tmp_path).head()


def test_a_head_with_a_field_of_another_kind_names_the_field(tmp_path: Path) -> None:
    document = HEAD.model_dump() | {"seed": "many"}
    (tmp_path / "study.json").write_text(json.dumps(document))
    with pytest.raises(StudyError, match="seed is damaged"):
        StudyFolder(tmp_path).head()


def test_a_trial_round_trips(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    record = TrialRecord(number=7, status="pruned", params=Params(lr=0.5), fold=0, value=0.25)
    study.write_record(record)
    probs = np.array([[0.25, 0.75]], np.float32)
    study.write_probs(7, ["a"], probs, HEAD.classes)
    study.write_weights(7, {"w": torch.ones(2, 3).T})
    assert study.records() == [record]
    assert study.probs(7).to_dict("list") == {"image": ["a"], "benign": [0.25], "malignant": [0.75]}
    assert study.weights(7)["w"].shape == (3, 2)
    study.drop_weights(7)
    assert not study.has_weights(7)
    with pytest.raises(StudyError, match=r"not kept; raise budget.keep_weights"):
        study.weights(7)


def test_missing_text_comes_back_as_none(tmp_path: Path) -> None:
    table = pd.DataFrame({"lesion": ["L", None], "age": [40.0, None], "site": [None, None]})
    write_table(tmp_path / "t.parquet", table)
    back = read_table(tmp_path / "t.parquet")
    assert back["lesion"].tolist() == ["L", None]
    assert back["site"].tolist() == [None, None]
    assert np.isnan(back["age"][1])


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(StudyError, match=r"t.parquet: missing or damaged"):
        read_table(tmp_path / "t.parquet")


def test_what_is_not_finite_is_null_in_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1.5, "b": [math.nan, (math.inf, "c")]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1.5, "b": [None, [None, "c"]]}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as scratch:
            scratch.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_every_opening_of_the_sealed_test_is_noted(tmp_path: Path) -> None:
    study = StudyFolder(tmp_path)
    write_table(tmp_path / "sealed" / "test.parquet", pd.DataFrame({"image": ["a"]}))
    assert count_openings(study) == 0
    assert open_sealed_test(study, purpose="a test")["image"].tolist() == ["a"]
    open_sealed_test(study, purpose="again")
    assert count_openings(study) == 2
    notes = (tmp_path / "sealed" / "openings.jsonl").read_text().splitlines()
    assert [json.loads(line)["purpose"] for line in notes] == ["a test", "again"]
