"""The study folder: what a study writes down, and how it is read back.

study.json       what the study is: classes, digests, versions
config.yaml      the resolved config
audit.json .html findings in the data;  facts.parquet: facts of every file
splits.parquet   open images with part, fold, group and content digest
sealed/          the test's images; only evaluation opens them (see sealed.py)
optuna.db        the Optuna storage: the truth about which trials there are
trials/00007/    record.json, probs.parquet, weights.safetensors (the best trials only)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors.torch import load_file, save
from torch import Tensor

from search.atomic import replacing, write_json
from search.errors import StudyError
from search.params import Config, Params

SCHEMA_VERSION = 2  # 1 lacks the fields that have defaults here
C = TypeVar("C", bound=Config)
Status = Literal["running", "complete", "pruned", "failed"]


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
    """A study's files."""

    path: Path

    @property
    def storage_url(self) -> str:
        return f"sqlite:///{self.path / 'optuna.db'}"

    def head(self) -> StudyHead:
        """Read study.json.

        Raises:
            StudyError: there is no study here, or it is from a newer version.
        """
        path = self.path / "study.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            version = int(document["schema_version"])
        except FileNotFoundError as error:
            raise StudyError(f"{self.path}: no study here; run consilium search first") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StudyError(f"{path}: damaged; search into another output folder") from error
        if version > SCHEMA_VERSION:
            raise StudyError(
                f"{path}: schema {version} is newer than {SCHEMA_VERSION}, the newest known here; "
                "update consilium"
            )
        return _validated(StudyHead, document, path)

    def write_head(self, head: StudyHead) -> None:
        write_json(self.path / "study.json", head.model_dump(mode="json"))

    def open_images(self) -> pd.DataFrame:
        """Images that search may see, and the calibration slice; never the sealed test."""
        return read_table(self.path / "splits.parquet")

    def trial(self, number: int) -> Path:
        return self.path / "trials" / f"{number:05d}"

    def record(self, number: int) -> TrialRecord:
        path = self.trial(number) / "record.json"
        return _validated(TrialRecord, json.loads(path.read_text(encoding="utf-8")), path)

    def write_record(self, record: TrialRecord) -> None:
        write_json(self.trial(record.number) / "record.json", record.model_dump(mode="json"))

    def records(self) -> list[TrialRecord]:
        """Every trial with a record, by number."""
        found = sorted((self.path / "trials").glob("*/record.json"))
        return [self.record(int(path.parent.name)) for path in found]

    def write_probs(
        self, number: int, images: Sequence[str], probs: NDArray[np.float32], classes: Sequence[str]
    ) -> None:
        """Out-of-fold probabilities, (n_images, n_classes), with their image keys."""
        table = pd.DataFrame(probs, columns=list(classes))
        table.insert(0, "image", list(images))
        write_table(self.trial(number) / "probs.parquet", table)

    def probs(self, number: int) -> pd.DataFrame:
        """image and a column a class."""
        return read_table(self.trial(number) / "probs.parquet")

    def write_weights(self, number: int, state: Mapping[str, Tensor]) -> None:
        write_tensors(self.trial(number) / "weights.safetensors", state)

    def weights(self, number: int) -> dict[str, Tensor]:
        """Best weights of a trial.

        Raises:
            StudyError: they were not kept.
        """
        path = self.trial(number) / "weights.safetensors"
        if not path.is_file():
            raise StudyError(
                f"{path}: not kept; raise budget.keep_weights and search into another folder"
            )
        state: dict[str, Tensor] = load_file(path)
        return state

    def has_weights(self, number: int) -> bool:
        return (self.trial(number) / "weights.safetensors").is_file()

    def drop_weights(self, number: int) -> None:
        (self.trial(number) / "weights.safetensors").unlink(missing_ok=True)


def write_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write safetensors whole; through bytes, so that a full disk is the OSError it is."""
    content = save({name: value.contiguous() for name, value in state.items()})
    with replacing(path) as scratch:
        scratch.write_bytes(content)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write Parquet whole."""
    with replacing(path) as scratch:
        table.to_parquet(scratch, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read Parquet; missing text is None.

    Raises:
        StudyError: it is not there or damaged.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: missing or damaged; rerun consilium search") from error
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].astype(object).where(table[name].notna(), None)
    return table


def _validated(kind: type[C], document: Any, path: Path) -> C:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        where = ".".join(str(key) for key in error.errors()[0]["loc"])
        raise StudyError(f"{path}: {where} is damaged; choose another output folder") from error
