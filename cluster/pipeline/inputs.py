"""What steps are made from, as digests: equal ones mean that nothing has to be done again."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from search.config import DatasetConfig, ExperimentConfig
from search.data.dataset import load_dataset
from search.study.records import StudyFolder

# Where and on what, not what.
ASIDE = frozenset(
    ("pipeline", "resources", "tracking", "cache", "cache_gb", "output", "study", "storage")
)
ENDED = ("complete", "pruned", "failed")


def digest_of(value: Any) -> str:
    """SHA-256 of a value as JSON, its first 32 digits."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def data_state(dataset: DatasetConfig) -> str:
    """Digest of a data set: its whole table, and size and time of every file or object.

    No image is read. A file that is not there counts as that.

    Raises:
        DatasetError: the data set cannot be read.
    """
    found = load_dataset(dataset)
    digest = hashlib.sha256(found.table.to_csv(index=False).encode())
    for path in found.table["path"]:
        digest.update(repr(found.stamps.get(path) or _stamp(path)).encode())
    return digest.hexdigest()[:32]


def sections(config: ExperimentConfig, *, without: Collection[str] = ()) -> str:
    """Digest of an experiment, but for what says only where and on what it is done."""
    return digest_of(config.model_dump(mode="json", exclude={*ASIDE, *without}))


def study_state(study: StudyFolder) -> dict[str, Any]:
    """The trials that have ended, with their further folds: how many, and their digest."""
    if not study.exists():
        return {"trials": 0, "digest": ""}
    head = study.head()
    rows: list[Any] = [[head.storage_name, head.data_digest, head.splits_hash]]
    records = [record for record in study.records() if record.status in ENDED]
    folds = study.fold_names()
    for record in records:
        rows.append([record.number, record.fold, record.status, record.values])
    for number, fold in folds:
        record = study.record(number, fold=fold)
        if record.status in ENDED:
            rows.append([number, fold, record.status, record.values, record.best_epoch])
    return {"trials": len(records), "digest": digest_of(rows)}


def _stamp(path: str) -> tuple[int, int]:
    """Size and time of a local file, 0 where there is none; objects were listed by their source."""
    try:
        about = Path(path).stat()
    except OSError:
        return 0, 0
    return about.st_size, about.st_mtime_ns
