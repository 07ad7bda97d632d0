"""The table to be scored: CSV or Parquet, here or in an object store."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from search.errors import ConfigError, DatasetError
from search.location import checked_url, open_place, read_bytes

PARQUET = (".parquet", ".pq")
WHOLE = r"^-?(0|[1-9][0-9]{0,17})$"  # 007 is a name
DECIMAL = r"^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?$"


@dataclass(frozen=True)
class Table:
    """A table as it was read, in memory.

    Attributes:
        rows: of a CSV file, all text, as written; empty cells are null.
        names: of the images, one a row.
        digest: SHA-256 of the file, hexadecimal.
        is_text: whether it was a CSV file.
    """

    rows: Any
    names: Sequence[str | None]
    digest: str
    is_text: bool

    def typed(self) -> Any:
        """The rows; where they were text, columns of numbers as numbers, if none is changed."""
        if not self.is_text:
            return self.rows
        return pa.table({name: _typed(self.rows[name]) for name in self.rows.column_names})


def read_table(location: str, column: str, *, added: Sequence[str]) -> Table:
    """Read a table whole.

    Args:
        location: a path or an s3:// URL; .parquet and .pq are Parquet, all else is CSV.
        column: of the images' names.
        added: columns of the output, which the table must not have.

    Raises:
        DatasetError: it is not there, no table, empty, or its columns do not fit.
    """
    content = _content(location)
    is_text = PurePosixPath(location).suffix.lower() not in PARQUET
    try:
        rows = _parse_csv(content) if is_text else pq.read_table(pa.BufferReader(content))
    except (ValueError, OSError, csv.Error) as error:  # those of Arrow are ValueErrors
        first = " ".join(str(error).split())[:200]
        raise DatasetError(f"{location}: cannot be read as a table ({first})") from error
    _check(location, rows, column, added)
    names = [None if name is None else str(name) for name in rows[column].to_pylist()]
    return Table(rows, names, hashlib.sha256(content).hexdigest(), is_text)


def checked_location(location: str, what: str) -> str:
    """A path or the URL of an object store.

    Raises:
        ConfigError: a URL of another kind.
    """
    if "://" not in location:
        return location
    try:
        return checked_url(location)
    except ValueError as error:
        raise ConfigError(f"{what} {location}: {error}") from error


def _content(location: str) -> bytes:
    place = open_place(checked_location(location, "TABLE"))
    try:
        return read_bytes(place)
    except FileNotFoundError as error:
        raise DatasetError(f"{location}: no such table; check the path") from error


def _parse_csv(content: bytes) -> Any:
    header = next(csv.reader(io.StringIO(content[: 2**20].decode("utf-8-sig", "replace"))), [])
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(header, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    return pyarrow.csv.read_csv(
        pa.BufferReader(content), convert_options=convert, parse_options=parse
    )


def _check(location: str, rows: Any, column: str, added: Sequence[str]) -> None:
    columns = rows.column_names
    if column not in columns:
        raise DatasetError(
            f"{location} has no column {column!r}; it has {', '.join(columns)[:300]}. "
            "Name the one with the images by --column"
        )
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise DatasetError(f"{location}: two columns are called {twice[0]!r}; rename one")
    taken = [name for name in added if name in columns]
    if taken:
        raise DatasetError(
            f"{location} has a column {taken[0]!r} already, which scoring adds; rename it"
        )
    if not rows.num_rows:
        raise DatasetError(f"{location} has no rows; name a table with a row an image")


def _typed(column: Any) -> Any:
    """A column of text as numbers, where no digit of any is lost."""
    import pyarrow.compute as pc

    if column.null_count == len(column):
        return column
    for pattern, kind in ((WHOLE, pa.int64()), (DECIMAL, pa.float64())):
        if pc.all(pc.match_substring_regex(column, pattern)).as_py():
            return column.cast(kind)
    return column
