"""The study folder: what a study writes down, and how it is read back.

study.json       what the study is: classes, digests, versions
config.yaml      the resolved config
audit.json .html findings in the data;  facts.parquet: facts of every file
splits.parquet   open images with part, fold, group and content digest
sealed/          the test's images; only evaluation opens them (see sealed.py)
optuna.db        the Optuna storage: the truth about which trials there are (see storage.py)
trials/00007/    record.json, probs.parquet, weights.safetensors (the best trials only); of the
                 folds after the first in fold_1/, fold_2/ ...
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from torch import Tensor

from search.atomic import write_json
from search.errors import StudyError
from search.location import ANSWER_WITHIN, Place, explained, list_files, read_bytes, read_many
from search.params import Config, Params
from search.tables import read_table, read_tensors, write_table, write_tensors

SCHEMA_VERSION = 2  # 1 lacks the fields that have defaults here
C = TypeVar("C", bound=Config)
Status = Literal["running", "complete", "pruned", "failed"]
KINDS = {  # what fills the disk
    "weights.safetensors": "weights",
    "probs.parquet": "probabilities",
    **dict.fromkeys(
        ("optuna.db", "optuna.db-wal", "optuna.db-shm", "optuna.db-journal"), "storage"
    ),
}


class StudyHead(Config):
    """study.json: what the study is."""

    schema_version: int = SCHEMA_VERSION
    name: str
    storage_name: str | None = Field(None, description="of the Optuna study; v1: name")
    created: str
    classes: list[str]
    positive: str | None
    objective: str = Field(description="the first of several, which trials are ranked by")
    objectives: list[str] = Field(default=[], description="all of them; v1: just the one")
    seed: int
    data_digest: str
    splits_hash: str
    n_images: dict[str, int] = Field(description="by part: train, calibration, test, dropped")
    versions: dict[str, str]


class TrialRecord(Config):
    """record.json: one trial and how it went."""

    number: int
    status: Status
    recipe: str | None = None
    params: Params
    fold: int
    value: float | None = Field(None, description="the first objective at the best epoch")
    values: dict[str, float] = Field(default={}, description="every objective at the best epoch")
    best_epoch: int | None = None
    costs: dict[str, float] = Field(
        default={}, description="params_m: millions; latency_ms: one image on one CPU thread"
    )
    violations: dict[str, float] = Field(
        default={}, description="constraint: by how much its bound is exceeded; empty if feasible"
    )
    started: str | None = Field(None, description="UTC, ISO 8601")
    seconds: float = 0
    setup_seconds: float | None = Field(None, description="of these, before the first step")
    gpu_hours: float = Field(0, description="seconds times the GPUs it held, as hours")
    worker: str | None = Field(None, description="host:pid of the process that trained it")
    workers: int = 1
    micro_batch: int | None = Field(
        None, description="images a pass, where the GPU had no room for a whole batch"
    )
    promoted_from: int | None = Field(None, description="trial of the first rung")
    epochs: list[dict[str, float | None]] = Field(default=[], description="metrics; None is NaN")
    confusion: list[list[int]] | None = Field(None, description="at the best epoch; rows are true")
    per_class: list[dict[str, float | int | str | None]] = Field(
        default=[], description="at the best epoch, a row a class"
    )
    error: str | None = None
    again: bool = Field(False, description="it failed by its surroundings and is done again")


@dataclass(frozen=True)
class StudyFolder:
    """A study's files, in a local folder or an object store."""

    path: Place

    def create(self) -> None:
        """Make the folder; in an object store, see within seconds that its bucket can be read.

        Raises:
            StudyError: it cannot.
        """
        if isinstance(self.path, Path):
            self.path.mkdir(parents=True, exist_ok=True)
        else:
            self.exists()

    def exists(self) -> bool:
        """Whether a study has begun here."""
        try:
            return bool(read_bytes(self.path / "study.json", within=ANSWER_WITHIN))
        except FileNotFoundError:
            return False

    def head(self) -> StudyHead:
        """Read study.json.

        Raises:
            StudyError: there is no study here, or it is from a newer version.
        """
        path = self.path / "study.json"
        try:
            content = read_bytes(path)
            version = int(json.loads(content)["schema_version"])
        except FileNotFoundError as error:
            raise StudyError(f"{self.path}: no study here; run consilium search first") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{path}: damaged; search into another output folder") from error
        if version > SCHEMA_VERSION:
            raise StudyError(
                f"{path}: schema {version} is newer than {SCHEMA_VERSION}, the newest known here; "
                "update consilium"
            )
        return _parse(StudyHead, content, path)

    def write_head(self, head: StudyHead) -> None:
        write_json(self.path / "study.json", head.model_dump(mode="json"))

    def open_images(self) -> pd.DataFrame:
        """Images that search may see, and the calibration slice; never the sealed test."""
        return read_table(self.path / "splits.parquet")

    def further_folds(self) -> list[int]:
        """Folds besides the one that trials are searched on; a given split may have none."""
        return sorted(set(self.open_images()["fold"].tolist()) - {-1, 0})

    def trial(self, number: int, fold: int = 0) -> Place:
        trial = self.path / "trials" / f"{number:05d}"
        return trial / f"fold_{fold}" if fold else trial

    def record(self, number: int, *, fold: int = 0) -> TrialRecord:
        path = self.trial(number, fold) / "record.json"
        return _parse(TrialRecord, read_bytes(path), path)

    def write_record(self, record: TrialRecord) -> None:
        path = self.trial(record.number, record.fold) / "record.json"
        write_json(path, record.model_dump(mode="json"))

    def records(self) -> list[TrialRecord]:
        """Every trial with a record of fold 0, by number."""
        return _records(self.path / "trials")

    def fold_records(self, number: int) -> list[TrialRecord]:
        """A trial's records of the folds after the first, by fold."""
        return _records(self.trial(number))

    def write_probs(
        self,
        number: int,
        images: Sequence[str],
        probs: NDArray[np.float32],
        classes: Sequence[str],
        *,
        fold: int = 0,
    ) -> None:
        """Out-of-fold probabilities, (n_images, n_classes), with their image keys."""
        table = pd.DataFrame(probs, columns=list(classes))
        table.insert(0, "image", list(images))
        write_table(self.trial(number, fold) / "probs.parquet", table)

    def probs(self, number: int, *, fold: int = 0) -> pd.DataFrame:
        """image and a column a class."""
        return read_table(self.trial(number, fold) / "probs.parquet")

    def oof_probs(self, number: int) -> pd.DataFrame:
        """Of fold 0 and all others that a trial has completed: image, fold, a column a class."""
        done = [r.fold for r in self.fold_records(number) if r.status == "complete"]
        tables = {fold: self.probs(number, fold=fold) for fold in (0, *done)}
        for fold, table in tables.items():
            table.insert(1, "fold", fold)
        return pd.concat(tables.values(), ignore_index=True)

    def write_weights(self, number: int, state: Mapping[str, Tensor], *, fold: int = 0) -> None:
        write_tensors(self._weights(number, fold), state)

    def weights(self, number: int, *, fold: int = 0) -> dict[str, Tensor]:
        """Best weights of a trial.

        Raises:
            StudyError: they were not kept, or are damaged.
        """
        path = self._weights(number, fold)
        try:
            return read_tensors(path)
        except FileNotFoundError as error:
            raise StudyError(
                f"{path}: not kept; raise budget.keep_weights and search into another folder"
            ) from error

    def has_weights(self, number: int, *, fold: int = 0) -> bool:
        path = self._weights(number, fold)
        with explained(path):
            return path.is_file()

    def kept_weights(self) -> set[int]:
        """All trials with weights of fold 0, by one listing."""
        return {int(name) for name in _folders_with("weights.safetensors", self.path / "trials")}

    def fold_names(self, file: str = "record.json") -> list[tuple[int, int]]:
        """Trial and fold of all folds above 0 that hold a file, by one listing."""
        parts = [name.split("/") for name in list_files(self.path / "trials")]
        return sorted(
            (int(names[0]), int(names[1].removeprefix("fold_")))
            for names in parts
            if len(names) == 3 and names[2] == file
        )

    def drop_weights(self, number: int, *, fold: int = 0) -> None:
        path = self._weights(number, fold)
        with explained(path):
            path.unlink(missing_ok=True)

    def _weights(self, number: int, fold: int) -> Place:
        return self.trial(number, fold) / "weights.safetensors"

    def disk_use(self) -> dict[str, int]:
        """Bytes of weights, probabilities, storage and the rest."""
        use = dict.fromkeys(("weights", "probabilities", "storage", "rest"), 0)
        for name, size in list_files(self.path).items():
            use[KINDS.get(name.split("/")[-1], "rest")] += size
        return use


def _folders_with(file: str, folder: Place) -> list[str]:
    """Names of the folders right below that hold a file."""
    parts = [name.split("/") for name in list_files(folder)]
    return sorted(names[0] for names in parts if names[1:] == [file])


def _records(folder: Place) -> list[TrialRecord]:
    paths = [folder / name / "record.json" for name in _folders_with("record.json", folder)]
    found = [
        _parse(TrialRecord, text, path) for text, path in zip(read_many(paths), paths, strict=True)
    ]
    return sorted(found, key=lambda record: (record.number, record.fold))


def _parse(kind: type[C], content: bytes, path: Place) -> C:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        where = ".".join(str(key) for key in error.errors()[0]["loc"]) or path.name
        raise StudyError(f"{path}: {where} is damaged; choose another output folder") from error
