"""One table of images from any number of sources.

Columns: image (unique key), image_id, path, source, raw_label, label, split, lesion, patient and
any metadata a source names. Missing text is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.config import DatasetConfig, FolderSource, TableSource
from search.data.sources import LINKS, read_folder, read_table
from search.errors import DatasetError
from search.location import Stamp

STANDARD = ("image", "image_id", "path", "source", "raw_label", "label", "split")


@dataclass(frozen=True)
class Dataset:
    """The joined table and what its labels mean.

    Attributes:
        table: a row an image, see the head of this file.
        classes: names by class index.
        positive: index of the class that must not be missed, or None.
        stamps: of the images in object stores as they were listed, by path.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    positive: int | None
    stamps: Mapping[str, Stamp] = field(default_factory=dict)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class indices, (n_images,)."""
        return self.table["label"].to_numpy(np.int64)

    @property
    def metadata(self) -> list[str]:
        """Columns that a source added beyond the standard ones."""
        return [name for name in self.table.columns if name not in (*STANDARD, *LINKS)]


def load_dataset(config: DatasetConfig) -> Dataset:
    """Join every source into one table and map its raw labels to classes.

    Raises:
        DatasetError: a folder, table or column that is not there, an unknown label, or a class
            without images.
        StudyError: an object store does not give them; see search.location.explained.
    """
    names = _source_names(config.sources)
    read = [
        read_folder(source, name)
        if isinstance(source, FolderSource)
        else read_table(source, i, name)
        for i, (source, name) in enumerate(zip(config.sources, names, strict=True))
    ]
    table = pd.concat([rows.table for rows in read], ignore_index=True)
    table = table.astype(object).where(table.notna(), None)
    classes = _class_names(table, config)
    table["label"] = _map_labels(table["raw_label"].tolist(), classes, config)
    _refuse_empty_classes(table, classes)
    table = table.sort_values("image", ignore_index=True)
    if "age" in table:
        table["age"] = pd.to_numeric(table["age"], errors="coerce")
    positive = classes.index(config.positive) if config.positive is not None else None
    stamps = {path: stamp for rows in read for path, stamp in rows.stamps.items()}
    return Dataset(table, classes, positive, stamps)


def _source_names(sources: Sequence[FolderSource | TableSource]) -> list[str]:
    names = [
        source.name
        or (
            PurePath(source.folder).name
            if isinstance(source, FolderSource)
            else PurePath(source.table).parent.name
        )
        for source in sources
    ]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DatasetError(
            f"two sources are called {sorted(twice)[0]!r}; "
            "give each its own dataset.sources[i].name"
        )
    return names


def _class_names(table: pd.DataFrame, config: DatasetConfig) -> tuple[str, ...]:
    classes = tuple(config.classes or sorted(set(table["raw_label"])))
    if len(classes) < 2:
        raise DatasetError(f"only one class, {classes[0]!r}; a classifier needs at least two")
    if config.positive is not None and config.positive not in classes:
        raise DatasetError(
            f"dataset.positive {config.positive!r} is no class; they are {', '.join(classes)}"
        )
    return classes


def _map_labels(
    raw: Sequence[str], classes: Sequence[str], config: DatasetConfig
) -> NDArray[np.int64]:
    mapping = {name: i for i, name in enumerate(classes)}
    rest: int | None = None
    if config.classes is not None:
        mapping = {}
        for i, labels in enumerate(config.classes.values()):
            if labels == "*":
                rest = i
            for label in labels if labels != "*" else ():
                if label in mapping:
                    raise DatasetError(
                        f"dataset.classes names {label!r} twice; keep it in one class"
                    )
                mapping[label] = i
    unknown = sorted({label for label in raw if label not in mapping})
    if unknown and rest is None:
        raise DatasetError(
            f"label {unknown[0]!r} belongs to no class; add it under dataset.classes "
            'or give one class "*"'
        )
    return np.array([mapping.get(label, rest) for label in raw], np.int64)


def _refuse_empty_classes(table: pd.DataFrame, classes: Sequence[str]) -> None:
    counts = np.bincount(table["label"].to_numpy(np.int64), minlength=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0:
            raise DatasetError(
                f"class {name!r} has no images; mend its raw labels under dataset.classes"
            )
