"""What is asked of a scoring, checked before anything is started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster.batch.images import Folders
from cluster.batch.output import added_columns, check_output
from cluster.batch.table import Table, checked_location, read_table
from ensemble.bundle import Bundle, load_bundle
from ensemble.runtime import Engine, at_prevalence
from search.errors import ConfigError, DatasetError
from search.location import is_url

LARGEST_SHARD = 256  # rows; what a kill costs an actor
SMALLEST_SHARD = 16
SHARDS = 64  # of a small table, so that the actors end together
LOOKED_FOR = 200  # names, before anything is started


@dataclass(frozen=True)
class Asked:
    """What the user asks for.

    Attributes:
        bundle: its folder.
        table: a path or an s3:// URL.
        images: folders or s3:// prefixes that names are relative to; the table's own if empty.
        column: of the images' names.
        output: a path or an s3:// URL that ends with .parquet or .csv.
        operating_point: name; the bundle's first if None.
        prevalence: class: share where the probabilities are to hold.
        shard: rows that are done, or done again, together; by the table's length if None.
        workers: actors; as many as there is room for if None.
        gpus: share of one that each actor has; 0: a CPU.
    """

    bundle: Path
    table: str
    output: str
    images: Sequence[str] = ()
    column: str = "image"
    operating_point: str | None = None
    prevalence: Mapping[str, float] = field(default_factory=dict)
    engine: Engine = "onnx"
    shard: int | None = None
    workers: int | None = None
    gpus: float = 0.0


@dataclass(frozen=True)
class Order:
    """What is asked, with everything that it names read and verified.

    Attributes:
        roots: absolute folders, or URLs, that names are relative to.
        shard: rows of each shard; the last one may have fewer.
    """

    asked: Asked
    bundle: Bundle
    table: Table
    roots: tuple[str, ...]
    shard: int

    @property
    def n_shards(self) -> int:
        return -(-len(self.table.names) // self.shard)

    @property
    def device(self) -> str:
        return "cuda" if self.asked.gpus else "cpu"

    def rows_of(self, number: int) -> range:
        """The table's rows in a shard."""
        return range(number * self.shard, min((number + 1) * self.shard, len(self.table.names)))

    def identity(self) -> dict[str, Any]:
        """What finished parts depend on; JSON."""
        point = self.bundle.operating_point(self.asked.operating_point)
        return {
            "bundle": self.bundle.manifest.digest,
            "table": self.table.digest,
            "column": self.asked.column,
            "images": list(self.roots),
            "operating_point": None if point is None else point.name,
            "prevalence": dict(self.asked.prevalence),
            "engine": self.asked.engine,
            "device": self.device,
            "shard": self.shard,
        }


def read_order(asked: Asked, *, here: bool = True) -> Order:
    """Read the table, verify the bundle, and refuse what cannot be done.

    Args:
        here: whether this machine's folders are those that the actors see.

    Raises:
        ConsiliumError: the first thing that is wrong.
    """
    checked_location(asked.output, "--output")
    if asked.gpus and asked.engine != "torch":
        raise ConfigError(f"--gpus needs --engine torch; {asked.engine} members use the CPU")
    bundle = load_bundle(asked.bundle.absolute())
    bundle.operating_point(asked.operating_point)
    classes = bundle.manifest.classes
    at_prevalence(bundle, np.empty((0, len(classes))), asked.prevalence)
    table = read_table(asked.table, asked.column, added=added_columns(classes))
    check_output(asked.output, table.rows.schema)
    roots = tuple(_root(each) for each in asked.images or [_folder_of(asked.table)])
    if here:
        _look(asked, table, roots)
    return Order(asked, bundle, table, roots, asked.shard or _shard(len(table.names)))


def _shard(n_rows: int) -> int:
    return max(SMALLEST_SHARD, min(LARGEST_SHARD, n_rows // SHARDS))


def _folder_of(table: str) -> str:
    return table.rpartition("/")[0] if is_url(table) else str(Path(table).parent)


def _root(images: str) -> str:
    location = checked_location(images, "--images")
    return location if is_url(location) else str(Path(location).absolute())


def _look(asked: Asked, table: Table, roots: Sequence[str]) -> None:
    """Refuse where no image will be found: the folder is wrong, not every image lost."""
    for root in roots:
        if not is_url(root) and not Path(root).is_dir():
            raise DatasetError(f"{root}: no such folder; mend --images")
    names = [name for name in table.names if name is not None]
    folders = Folders(roots)
    if not any(map(folders.find, names[:LOOKED_FOR])):
        first = f"(the first is {names[0]!r})" if names else "(all are empty)"
        raise DatasetError(
            f"{asked.table}: none of its first images is in {roots[0]} {first}; "
            "mend --images or --column"
        )
