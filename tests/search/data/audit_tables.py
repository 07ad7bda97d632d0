"""Handmade dataset tables and facts for the tests of the audit."""

from typing import Any

import pandas as pd

from search.config import AuditConfig
from search.data.audit import Audit, apply_policies, audit_dataset

CLASSES = ("benign", "malignant")
KEEP = {"damaged": "drop"} | dict.fromkeys(
    ("tiny", "non_rgb", "missing_metadata", "label_conflicts", "duplicates",
     "near_duplicates", "leaks"), "keep",
)  # fmt: skip


def table_of(*rows: dict[str, Any]) -> pd.DataFrame:
    """A dataset table; what a row leaves out is distinct, benign and unlinked."""
    filled = [
        {
            "image": f"s/{i}.jpg",
            "image_id": str(i),
            "path": f"/d/{i}.jpg",
            "source": "s",
            "raw_label": "nevus",
            "label": 0,
            "split": None,
            "lesion": None,
            "patient": None,
        }
        | row
        for i, row in enumerate(rows)
    ]
    return pd.DataFrame(filled).astype(object).astype({"label": "int64"})


def facts_of(table: pd.DataFrame, **changes: dict[int, Any]) -> pd.DataFrame:
    """Facts of distinct sound images, but for column: {row: value}."""
    n = len(table)
    columns: dict[str, list[Any]] = {
        "path": table["path"].tolist(),
        "file_digest": [f"f{i}" for i in range(n)],
        "pixel_digest": [f"p{i}" for i in range(n)],
        # Each hash sets 16 bits of its own: 32 bits lie between any two.
        "phash": [("0" * 4 * i + "ffff").ljust(64, "0") for i in range(n)],
        "width": [100] * n,
        "height": [100] * n,
        "mode": ["RGB"] * n,
        "problem": [None] * n,
    }
    for name, values in changes.items():
        for row, value in values.items():
            columns[name][row] = value
    return pd.DataFrame(columns).astype(object).astype({"width": int, "height": int})


def audit_of(
    table: pd.DataFrame, facts: pd.DataFrame, *, given_split: bool = False, **policies: Any
) -> Audit:
    config = AuditConfig.model_validate(KEEP | {"near_distance": 12} | policies)
    return audit_dataset(table, facts, config, classes=CLASSES, given_split=given_split)


def kept_of(
    table: pd.DataFrame, facts: pd.DataFrame, *, given_split: bool = False, **policies: Any
) -> list[int]:
    """Numbers of the images that the policies leave."""
    audit = audit_of(table, facts, given_split=given_split, **policies)
    kept = apply_policies(table, audit, given_split=given_split)
    assert kept.index.tolist() == list(range(len(kept)))
    return [int(image[2:-4]) for image in kept["image"]]


def same_file(*rows: int) -> dict[str, dict[int, str]]:
    return {
        "file_digest": dict.fromkeys(rows, "same"),
        "pixel_digest": dict.fromkeys(rows, "same"),
        "phash": dict.fromkeys(rows, "0" * 64),
    }


MELANOMA = {"raw_label": "melanoma", "label": 1}
TRAIN, VAL, TEST = {"split": "train"}, {"split": "val"}, {"split": "test"}
