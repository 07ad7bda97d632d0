"""What is finished: a folder of parts beside the output, and the order that they belong to."""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from search.atomic import write_bytes, write_json
from search.errors import ConfigError, DatasetError
from search.location import Place, explained, list_files, open_place, read_bytes

ORDER = "order.json"
DIGEST = b"consilium_order"  # in a part's metadata: which order it belongs to
PART = re.compile(r"(\d+)\.parquet")
LEFT = re.compile(r"\d+\.parquet|\..*\.tmp")  # parts, and what was to become one
READERS = 8  # parts that are read at once
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
        self._output, self._digest = output, ""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a local output, by `.<output>.lock`; the system lets go of it when the process ends.

        The file stays: who took it away could let two commands in. Object stores know no lock.

        Raises:
            ConfigError: another command scores into this output.
        """
        if not isinstance(self._folder, Path):
            yield
            return
        lock = self._folder.with_name(f".{Path(self._output).name}.lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock, timeout=0)
        try:
            held.acquire()
        except Timeout as error:
            raise ConfigError(
                f"{self._output}: another command scores into this output; wait for it or stop it, "
                "or name another --output"
            ) from error
        try:
            yield
        finally:
            held.release()

    def are_there(self) -> bool:
        """Whether a scoring is under way or was ended."""
        return ORDER in list_files(self._folder)

    def begin(self, order: Order) -> set[int]:
        """The numbers of this very order's parts that are there already.

        Parts beside which no order lies may be of any: they are taken away.

        Raises:
            ConfigError: they belong to another order.
        """
        self._digest = _digest(order)
        names = list_files(self._folder)
        if ORDER not in names:
            self._take_away(name for name in names if LEFT.fullmatch(name))
            write_json(self._folder / ORDER, order)
            return set()
        check_same(order, self._read_order(), self.location)
        numbers = sorted({int(found[1]) for found in map(PART.fullmatch, names) if found})
        with ThreadPoolExecutor(READERS) as pool:
            mine = pool.map(self._is_there, numbers)
            return {number for number, is_there in zip(numbers, mine, strict=True) if is_there}

    def write(self, number: int, part: Any) -> None:
        """Write a part whole, of the order that was begun."""
        sink = io.BytesIO()
        metadata = {**(part.schema.metadata or {}), DIGEST: self._digest.encode()}
        pq.write_table(part.replace_schema_metadata(metadata), sink)
        write_bytes(self._path(number), sink.getvalue())

    def read(self, number: int) -> Any:
        """A part, without what tells its order.

        Raises:
            DatasetError: it is gone, damaged or of another order.
        """
        path = self._path(number)
        try:
            part = pq.read_table(pa.BufferReader(read_bytes(path)))
        except (FileNotFoundError, ValueError, OSError) as error:
            raise DatasetError(
                f"{path}: gone or damaged; take it away and run the same command again"
            ) from error
        if not self._is_mine(part.schema):
            raise DatasetError(f"{path}: of another order; run the same command again")
        return part.replace_schema_metadata(None)

    def remove(self) -> None:
        """Take the folder away."""
        if isinstance(self._folder, Path):
            shutil.rmtree(self._folder)
            return
        with explained(self._folder):
            self._folder.fs.rm(self._folder.path, recursive=True)

    def _path(self, number: int) -> Place:
        return self._folder / f"{number:05d}.parquet"

    def _is_there(self, number: int) -> bool:
        """Whether a part is whole and of the order that was begun."""
        try:
            return self._is_mine(pq.read_schema(pa.BufferReader(read_bytes(self._path(number)))))
        except (FileNotFoundError, ValueError, OSError):
            return False

    def _is_mine(self, schema: Any) -> bool:
        return (schema.metadata or {}).get(DIGEST) == self._digest.encode()

    def _take_away(self, names: Iterable[str]) -> None:
        for name in names:
            place = self._folder / name
            with explained(place):
                place.unlink(missing_ok=True)

    def _read_order(self) -> Order:
        try:
            found = json.loads(read_bytes(self._folder / ORDER))
        except ValueError as error:
            raise ConfigError(
                f"{self.location}/{ORDER}: damaged; take {self.location} away"
            ) from error
        return found if isinstance(found, dict) else {}


def _digest(order: Order) -> str:
    """SHA-256, hexadecimal, of an order, whatever the sequence of its keys."""
    return hashlib.sha256(json.dumps(order, sort_keys=True).encode()).hexdigest()


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
