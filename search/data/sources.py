"""Where images come from: folders of class folders, and tables with image folders."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import pandas as pd

from search.config import FolderSource, TableSource
from search.data.folders import Folder, open_folder
from search.errors import DatasetError
from search.location import ABSENT, Stamp, is_url, open_place, read_bytes

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


class Rows(NamedTuple):
    """What a source holds.

    Attributes:
        table: a row an image.
        stamps: of its images in object stores, by path; those that are not there are ABSENT.
    """

    table: pd.DataFrame
    stamps: dict[str, Stamp]


def read_folder(source: FolderSource, name: str) -> Rows:
    """Rows of `class/…` or `split/class/…`; the two are told apart by the folders' names."""
    root = open_folder(source.folder)
    if not root.exists():
        raise DatasetError(f"{root}: no such folder; mend dataset.sources[].folder")
    tops = root.folders()
    if not tops:
        raise DatasetError(f"{root}: holds no class folders; expected <class>/<image>.jpg")
    split = all(top.lower() in SPLIT_NAMES for top in tops)
    rows: list[dict[str, Any]] = []
    for top in tops:
        for folder in root.folders(top) if split else [top]:
            images = sorted(root.images(folder))
            if not images:
                raise DatasetError(
                    f"{root.locate(folder)}: a class without images; fill it or take the folder "
                    "away"
                )
            given = SPLIT_NAMES[top.lower()] if split else None
            rows += [_row(root, image, name, PurePath(folder).name, given) for image in images]
    if not rows:
        raise DatasetError(f"{root}: holds no class folders; expected <class>/<image>.jpg")
    table = pd.DataFrame(rows)
    return Rows(table, _stamps(table, [root]))


def _row(root: Folder, image: str, source: str, label: str, split: str | None) -> dict[str, Any]:
    return {
        "image": f"{source}/{image}",
        "image_id": PurePath(image).stem,
        "path": root.locate(image),
        "source": source,
        "raw_label": label,
        "split": split,
        "lesion": None,
        "patient": None,
    }


def _stamps(table: pd.DataFrame, folders: Sequence[Folder]) -> dict[str, Stamp]:
    found: dict[str, Stamp] = {}
    for path in table["path"]:
        if is_url(path):
            stamps = (folder.stamp(path) for folder in folders)
            found[path] = next((stamp for stamp in stamps if stamp is not None), ABSENT)
    return found


def read_table(source: TableSource, index: int, name: str) -> Rows:
    folders = [open_folder(folder) for folder in source.images]
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
    paths = _find_images(source, folders, theirs[columns["image"]].astype(str).tolist())
    table = pd.DataFrame(
        {
            "image": [f"{name}/{_relative(path, folders)}" for path in paths],
            "image_id": [PurePath(path).stem for path in paths],
            "path": paths,
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
    _refuse_repeats(table, source)
    return Rows(table, _stamps(table, folders))


def _open_table(source: TableSource) -> pd.DataFrame:
    path = source.table
    file = _table_file(path)
    try:
        if PurePath(path).suffix.lower() in (".parquet", ".pq"):
            return pd.read_parquet(file)
        # An image called 0012 is not the number 12.
        return pd.read_csv(file, dtype={source.columns["image"]: str})
    except (ValueError, OSError) as error:
        first = " ".join(str(error).split())[:200] or type(error).__name__
        raise DatasetError(
            f"{path}: cannot be read as a table ({first}); give CSV or Parquet"
        ) from error


def _table_file(path: Path | str) -> Path | BytesIO:
    try:
        if is_url(path):
            return BytesIO(read_bytes(open_place(str(path))))
        if Path(path).is_file():
            return Path(path)
    except FileNotFoundError:
        pass
    raise DatasetError(f"{path}: no such table; mend dataset.sources[].table")


def _find_images(source: TableSource, folders: Sequence[Folder], names: Sequence[str]) -> list[str]:
    """The file of each row: the name as it stands or with an extension, in the first folder that
    has it. A row without a file keeps the expected path, so that the audit can name it."""
    for folder in folders:
        if not folder.exists():
            raise DatasetError(f"{folder}: no such folder; mend dataset.sources[].images")
    listing: dict[str, str] = {}
    for folder in reversed(folders):
        for image in folder.images():
            listing[PurePath(image).with_suffix("").as_posix()] = folder.locate(image)
            listing[image] = folder.locate(image)
    found = [listing.get(name) for name in names]
    if not any(found):
        raise DatasetError(
            f"{source.table}: none of its {len(names)} images is in {folders[0]} "
            f"(the first is {names[0]!r}); mend images or columns.image"
        )
    return [path or folders[0].locate(name) for path, name in zip(found, names, strict=True)]


def _relative(path: str, folders: Sequence[Folder]) -> str:
    for folder in folders:
        name = folder.name_of(path)
        if name is not None:
            return name
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


def _refuse_repeats(table: pd.DataFrame, source: TableSource) -> None:
    repeated = table.loc[table["image"].duplicated(), "image_id"]
    if len(repeated):
        raise DatasetError(
            f"{source.table}: {len(repeated)} images have more than one row, the first is "
            f"{repeated.iloc[0]!r}; keep one row an image"
        )
