"""A study folder gives back what it was given, local or in a bucket, and refuses the unknown."""

import json
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from search.atomic import write_text
from search.errors import StudyError
from search.location import open_place
from search.params import Params
from search.study.records import StudyFolder, StudyHead, TrialRecord
from search.study.sealed import count_openings, open_sealed_test
from search.tables import read_table, write_table
from tests.servers import s3

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


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3() as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> StudyFolder:
    """An empty study folder, of either kind."""
    if request.param == "local":
        return StudyFolder(tmp_path)
    return StudyFolder(open_place(f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}/study"))


def a_record(number: int, *, fold: int = 0, status: str = "complete") -> TrialRecord:
    return TrialRecord.model_validate(
        {"number": number, "fold": fold, "status": status, "params": Params(lr=0.5)}
    )


def test_the_head_round_trips(study: StudyFolder) -> None:
    study.create()
    assert not study.exists()
    study.write_head(HEAD)
    assert study.exists()
    assert study.head() == HEAD


def test_a_folder_without_a_study_is_named(study: StudyFolder) -> None:
    with pytest.raises(StudyError, match=r"no study here; run consilium search first"):
        study.head()


def test_a_newer_schema_is_refused(study: StudyFolder) -> None:
    study.write_head(HEAD.model_copy(update={"schema_version": 99}))
    with pytest.raises(StudyError, match=r"study.json: schema 99 is newer than 2, .*; update"):
        study.head()


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": "x"}', "\xff"])
def test_a_damaged_head_is_named(study: StudyFolder, text: str) -> None:
    (study.path / "study.json").parent.mkdir(parents=True, exist_ok=True)
    (study.path / "study.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StudyError, match=r"study.json: damaged"):
        study.head()


def test_a_head_with_a_field_of_another_kind_names_the_field(tmp_path: Path) -> None:
    document = HEAD.model_dump() | {"seed": "many"}
    (tmp_path / "study.json").write_text(json.dumps(document))
    with pytest.raises(StudyError, match="seed is damaged"):
        StudyFolder(tmp_path).head()


def test_a_damaged_record_is_named(study: StudyFolder) -> None:
    write_text(study.trial(3) / "record.json", "{")
    with pytest.raises(StudyError, match=r"00003/record.json: record.json is damaged"):
        study.records()


def test_a_trial_round_trips(study: StudyFolder) -> None:
    record = TrialRecord(number=7, status="pruned", params=Params(lr=0.5), fold=0, value=0.25)
    study.write_record(record)
    probs = np.array([[0.25, 0.75]], np.float32)
    study.write_probs(7, ["a"], probs, HEAD.classes)
    study.write_weights(7, {"w": torch.ones(2, 3).T})
    assert study.records() == [record]
    assert study.record(7) == record
    assert study.probs(7).to_dict("list") == {"image": ["a"], "benign": [0.25], "malignant": [0.75]}
    assert study.weights(7)["w"].tolist() == [[1, 1]] * 3
    assert study.has_weights(7)
    study.drop_weights(7)
    study.drop_weights(7)
    assert not study.has_weights(7)
    with pytest.raises(StudyError, match=r"not kept; raise budget.keep_weights"):
        study.weights(7)


def test_a_record_that_was_never_written_is_a_missing_file(study: StudyFolder) -> None:
    with pytest.raises(FileNotFoundError, match=r"00007/record.json"):
        study.record(7)
    assert study.records() == []


def test_damaged_weights_are_named(study: StudyFolder) -> None:
    write_text(study.trial(7) / "weights.safetensors", "no weights")
    with pytest.raises(StudyError, match=r"weights.safetensors: damaged"):
        study.weights(7)


def test_the_records_of_trials_and_of_their_folds_are_apart(study: StudyFolder) -> None:
    trials = [a_record(number) for number in (2, 10, 1)]
    folds = [a_record(2, fold=fold) for fold in (10, 2)]
    for record in [*trials, *folds]:
        study.write_record(record)
    assert [r.number for r in study.records()] == [1, 2, 10]
    assert study.fold_records(2) == folds[::-1]
    assert study.fold_records(1) == []
    assert study.record(2, fold=10) == folds[0]


def test_each_fold_has_its_own_probabilities_and_weights(study: StudyFolder) -> None:
    for fold in (0, 2):
        study.write_probs(1, ["a"], np.array([[fold, 1]], np.float32), ["x", "y"], fold=fold)
        study.write_weights(1, {"w": torch.full((1,), fold)}, fold=fold)
    assert study.probs(1)["x"].tolist() == [0]
    assert study.probs(1, fold=2)["x"].tolist() == [2]
    assert study.weights(1, fold=2)["w"].item() == 2
    study.drop_weights(1)
    assert study.has_weights(1, fold=2)
    assert not study.has_weights(1, fold=1)


def test_out_of_fold_probabilities_are_those_of_completed_folds(study: StudyFolder) -> None:
    for fold, image in enumerate("abc"):
        study.write_probs(1, [image], np.array([[fold, 1]], np.float32), ["x", "y"], fold=fold)
    study.write_record(a_record(1, status="pruned"))
    study.write_record(a_record(1, fold=1, status="running"))
    study.write_record(a_record(1, fold=2))
    assert study.oof_probs(1).to_dict("list") == {
        "image": ["a", "c"],
        "fold": [0, 2],
        "x": [0, 2],
        "y": [1, 1],
    }


def test_weights_and_the_disk_are_told_by_listing(study: StudyFolder) -> None:
    for number, fold in ((3, 0), (12, 0), (4, 1)):
        study.write_weights(number, {"w": torch.ones(100)}, fold=fold)
    study.write_probs(4, ["a"], np.ones((1, 2), np.float32), ["x", "y"])
    write_text(study.path / "optuna.db", "0123456789")
    write_text(study.path / "study.json", "{}")
    assert study.kept_weights() == {3, 12}
    use = study.disk_use()
    assert {k: use[k] for k in ("storage", "rest")} == {"storage": 10, "rest": 2}
    assert use["weights"] == sum(
        len((study.trial(n, f) / "weights.safetensors").read_bytes())
        for n, f in ((3, 0), (12, 0), (4, 1))
    )
    assert use["probabilities"] == len((study.trial(4) / "probs.parquet").read_bytes())


def test_an_empty_study_uses_no_disk(study: StudyFolder) -> None:
    assert set(study.disk_use().values()) == {0}


def test_a_folder_goes_to_another_process_whole(study: StudyFolder) -> None:
    study.write_head(HEAD)
    there: StudyFolder = pickle.loads(pickle.dumps(study))  # noqa: S301
    assert there == study
    assert there.head() == HEAD


def test_missing_text_comes_back_as_none(study: StudyFolder) -> None:
    table = pd.DataFrame({"lesion": ["L", None], "age": [40.0, None], "site": [None, None]})
    write_table(study.path / "t.parquet", table)
    back = read_table(study.path / "t.parquet")
    assert back["lesion"].tolist() == ["L", None]
    assert back["site"].tolist() == [None, None]
    assert np.isnan(back["age"][1])


def test_a_damaged_or_missing_table_is_named(study: StudyFolder) -> None:
    write_text(study.path / "t.parquet", "PAR1 no more")
    for name in ("t.parquet", "none.parquet"):
        with pytest.raises(StudyError, match=rf"{name}: missing or damaged"):
            read_table(study.path / name)


def test_every_opening_of_the_sealed_test_is_noted(study: StudyFolder) -> None:
    write_table(study.path / "sealed" / "test.parquet", pd.DataFrame({"image": ["a"]}))
    assert count_openings(study) == 0
    assert open_sealed_test(study, purpose="a test")["image"].tolist() == ["a"]
    open_sealed_test(study, purpose="again")
    assert count_openings(study) == 2
    notes = (study.path / "sealed" / "openings.jsonl").read_text().splitlines()
    assert [json.loads(line)["purpose"] for line in notes] == ["a test", "again"]
