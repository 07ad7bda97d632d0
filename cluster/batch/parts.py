"""What is finished: a folder of parts beside the output, and the order that they belong to."""

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from search.atomic import write_bytes, write_json
from search.errors import ConfigError, DatasetError
from search.location import explained, list_files, open_place, read_bytes

ORDER = "order.json"
# By the key of an order: what it is called, and what may be done.
CALLED = {
    "bundle": "the bundle",
    "table": "the table",
    "shard": "--shard",
    "device": "--gpus",
    "images": "--images",
}

Order = Mapping[str, Any]


class Parts:
    """The folder `<output>.parts`, here or in an object store."""

    def __init__(self, output: str) -> None:
        self.location = f"{output}.parts"
        self._folder = open_place(self.location)

    def are_there(self) -> bool:
        """Whether a scoring is under way or was ended."""
        return ORDER in list_files(self._folder)

    def begin(self, order: Order) -> set[int]:
        """The numbers of the parts that are there already.

        Raises:
            ConfigError: they belong to another order.
        """
        names = list_files(self._folder)
        if ORDER not in names:
            write_json(self._folder / ORDER, order)
            return set()
        check_same(order, self._read_order(), self.location)
        stems = (Path(name).stem for name in names if name.endswith(".parquet"))
        return {int(stem) for stem in stems if stem.isdigit()}

    def write(self, number: int, part: Any) -> None:
        """Write a part whole."""
        sink = io.BytesIO()
        pq.write_table(part, sink)
        write_bytes(self._folder / f"{number:05d}.parquet", sink.getvalue())

    def read(self, number: int) -> Any:
        """A part.

        Raises:
            DatasetError: it is gone or damaged.
        """
        path = self._folder / f"{number:05d}.parquet"
        try:
            return pq.read_table(pa.BufferReader(read_bytes(path)))
        except (FileNotFoundError, ValueError, OSError) as error:
            raise DatasetError(
                f"{path}: gone or damaged; take it away and run the same command again"
            ) from error

    def remove(self) -> None:
        """Take the folder away."""
        if isinstance(self._folder, Path):
            shutil.rmtree(self._folder)
            return
        with explained(self._folder):
            self._folder.fs.rm(self._folder.path, recursive=True)

    def _read_order(self) -> Order:
        try:
            found = json.loads(read_bytes(self._folder / ORDER))
        except ValueError as error:
            raise ConfigError(
                f"{self.location}/{ORDER}: damaged; take {self.location} away"
            ) from error
        return found if isinstance(found, dict) else {}


def check_same(order: Order, found: Order, location: str) -> None:
    """Refuse what another order left.

    Raises:
        ConfigError: naming the first difference and what to do.
    """
    for key, wanted in order.items():
        if found.get(key) != wanted:
            name = CALLED.get(key, f"--{key.replace('_', '-')}")
            raise ConfigError(
                f"{location}: belongs to another order, where {name} was {_short(found.get(key))} "
                f"and not {_short(wanted)}; ask the same, name another --output, or take it away"
            )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:12] if len(text) == 64 else text[:120]  # a digest's first digits tell it
