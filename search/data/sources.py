"""Where images come from: folders of class folders, and tables with image folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from search.config import FolderSource, TableSource
from search.errors import DatasetError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
LINKS = ("lesion", "patient")


def read_folder(source: FolderSource, name: str) -> pd.DataFrame:
    """Rows of `class/…` or `split/class/…`; the two are told apart by the folders' names."""
    if not source.folder.is_dir():
        raise DatasetError(f"{source.folder}: no such folder; mend dataset.sources[].folder")
    tops = _folders(source.folder)
    if not tops:
        raise DatasetError(f"{source.folder}: holds no class folders; expected <class>/<image>.jpg")
    split = all(top.name.lower() in SPLIT_NAMES for top in tops)
    rows: list[dict[str, Any]] = []
    for top in tops:
        for folder in _folders(top) if split else [top]:
            images = _images(folder)
            if not images:
                raise DatasetError(
                    f"{folder}: a class without images; fill it or take the folder away"
                )
            given = SPLIT_NAMES[top.name.lower()] if split else None
            rows += [_row(path, source.folder, name, folder.name, given) for path in images]
    if not rows:
        raise DatasetError(f"{source.folder}: holds no class folders; expected <class>/<image>.jpg")
    return pd.DataFrame(rows)


def _row(path: Path, root: Path, source: str, label: str, split: str | None) -> dict[str, Any]:
    return {
        "image": f"{source}/{path.relative_to(root).as_posix()}",
        "image_id": path.stem,
        "path": str(path),
        "source": source,
        "raw_label": label,
        "split": split,
        "lesion": None,
        "patient": None,
    }


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())


def read_table(source: TableSource, index: int, name: str) -> pd.DataFrame:
    theirs = _open_table(source)
    columns = {ours: name for ours, name in source.columns.items() if name is not None}
    for wanted in columns.values():
        if wanted not in theirs:
            raise DatasetError(
                f"{source.table} has no column {wanted!r}; it has {', '.join(theirs.columns)}. "
                f"Name the right one under dataset.sources[{index}].columns."
            )
    if theirs.empty:
        raise DatasetError(f"{source.table} has no rows; name a table with a row an image")
    paths = _find_images(source, theirs[columns["image"]].astype(str).tolist())
    table = pd.DataFrame(
        {
            "image": [f"{name}/{_relative(p, source.images)}" for p in paths],
            "image_id": [p.stem for p in paths],
            "path": [str(p) for p in paths],
            "source": name,
            "raw_label": theirs[columns["label"]],
            "split": _given_splits(source, theirs, columns.get("split")),
        }
    )
    for link in LINKS:
        table[link] = theirs[columns[link]] if link in columns else None
    for ours in columns:
        if ours not in ("image", "label", "split", *LINKS):
            table[ours] = theirs[columns[ours]]
    _refuse_blank_labels(table, source)
    return _refuse_repeats(table, source)


def _open_table(source: TableSource) -> pd.DataFrame:
    path = source.table
    if not path.is_file():
        raise DatasetError(f"{path}: no such table; mend dataset.sources[].table")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(path)
        # An image called 0012 is not the number 12.
        return pd.read_csv(path, dtype={source.columns["image"]: str})
    except (ValueError, OSError) as error:
        first = " ".join(str(error).split())[:200] or type(error).__name__
        raise DatasetError(
            f"{path}: cannot be read as a table ({first}); give CSV or Parquet"
        ) from error


def _find_images(source: TableSource, names: Sequence[str]) -> list[Path]:
    """The file of each row: the name as it stands or with an extension, in the first folder that
    has it. A row without a file keeps the expected path, so that the audit can name it."""
    for folder in source.images:
        if not folder.is_dir():
            raise DatasetError(f"{folder}: no such folder; mend dataset.sources[].images")
    listing: dict[str, Path] = {}
    for folder in reversed(source.images):
        for path in folder.rglob("*"):
            if path.suffix.lower() in EXTENSIONS:
                relative = path.relative_to(folder)
                listing[relative.with_suffix("").as_posix()] = path
                listing[relative.as_posix()] = path
    found = [listing.get(name) for name in names]
    if not any(found):
        raise DatasetError(
            f"{source.table}: none of its {len(names)} images is in {source.images[0]} "
            f"(the first is {names[0]!r}); mend images or columns.image"
        )
    return [path or source.images[0] / name for path, name in zip(found, names, strict=True)]


def _relative(path: Path, folders: Sequence[Path]) -> str:
    for folder in folders:
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    raise DatasetError(f"{path}: outside {folders[0]}; name images relative to their folders")


def _given_splits(source: TableSource, table: pd.DataFrame, column: str | None) -> list[str | None]:
    if column is None:
        return [None] * len(table)
    values = table[column].tolist()
    unknown = sorted({str(v) for v in values if pd.notna(v) and str(v).lower() not in SPLIT_NAMES})
    if unknown:
        raise DatasetError(
            f"{source.table}: column {column!r} holds {unknown[0]!r}; a split is train, val or test"
        )
    return [None if pd.isna(v) else SPLIT_NAMES[str(v).lower()] for v in values]


def _refuse_blank_labels(table: pd.DataFrame, source: TableSource) -> None:
    blank = table.loc[table["raw_label"].isna(), "image_id"]
    if len(blank):
        raise DatasetError(
            f"{source.table}: {len(blank)} rows have no label, the first is {blank.iloc[0]!r}; "
            "fill the column or take the rows away"
        )
    table["raw_label"] = table["raw_label"].astype(str)


def _refuse_repeats(table: pd.DataFrame, source: TableSource) -> pd.DataFrame:
    repeated = table.loc[table["image"].duplicated(), "image_id"]
    if len(repeated):
        raise DatasetError(
            f"{source.table}: {len(repeated)} images have more than one row, the first is "
            f"{repeated.iloc[0]!r}; keep one row an image"
        )
    return table
