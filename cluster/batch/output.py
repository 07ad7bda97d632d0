"""The one file that comes out: the table's columns and what was scored, in the table's order."""

import csv
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.batch.table import PARQUET
from search.atomic import replacing
from search.errors import ConfigError
from search.location import explained, open_place

GROUP = 16_384  # rows of a Parquet file that are compressed together
METADATA = "consilium"
About = Callable[[], Mapping[str, Any]]


def added_columns(classes: Sequence[str]) -> list[str]:
    """The names of what scoring adds to a table."""
    return [*(f"prob_{name}" for name in classes), "decision", "novel", "error"]


def check_output(output: str, schema: Any) -> None:
    """Refuse what no output can be, before the work and not after it.

    Raises:
        ConfigError: neither Parquet nor CSV, or columns that CSV cannot hold.
    """
    suffix = PurePosixPath(output).suffix.lower()
    if suffix not in (*PARQUET, ".csv"):
        raise ConfigError(f"--output {output}: give a name that ends with .parquet or .csv")
    nested = [field.name for field in schema if pa.types.is_nested(field.type)]
    if suffix == ".csv" and nested:
        raise ConfigError(f"--output {output}: CSV cannot hold column {nested[0]!r}; name .parquet")


def as_columns(part: Any, classes: Sequence[str]) -> Any:
    """Rows of `cluster.batch.scorer.SCHEMA`, one shard's, in order, as the columns to be added."""
    probs = part["probs"].to_pylist()
    columns: dict[str, Any] = {
        f"prob_{name}": pa.array([None if p is None else p[i] for p in probs], pa.float64())
        for i, name in enumerate(classes)
    }
    return pa.table(columns | {name: part[name] for name in ("decision", "novel", "error")})


def is_csv(output: str) -> bool:
    return PurePosixPath(output).suffix.lower() == ".csv"


def write_output(output: str, tables: Iterable[Any], about: About) -> None:
    """Write tables of equal columns as one file, whole or not at all.

    Args:
        about: called after the last table; kept in a Parquet file's metadata as `consilium`.
    """
    with _file(output) as path:
        if is_csv(output):
            _write_csv(path, tables)
        else:
            _write_parquet(path, tables, about)


def _write_parquet(path: Path, tables: Iterable[Any], about: About) -> None:
    writer = None
    try:
        for table in _grouped(tables):
            if writer is None:
                writer = pq.ParquetWriter(path, table.schema)
            writer.write_table(table.cast(writer.schema))
        if writer is not None:
            text = json.dumps(about(), ensure_ascii=False)
            writer.add_key_value_metadata({METADATA: text})
    finally:
        if writer is not None:
            writer.close()


def _grouped(tables: Iterable[Any]) -> Iterator[Any]:
    waiting: list[Any] = []
    for table in tables:
        waiting.append(table)
        if sum(one.num_rows for one in waiting) >= GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _write_csv(path: Path, tables: Iterable[Any]) -> None:
    """Numbers with all their digits; null is an empty cell; true and false in small letters."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for number, table in enumerate(tables):
            if number == 0:
                writer.writerow(table.column_names)
            columns = [[_cell(value) for value in column.to_pylist()] for column in table.columns]
            writer.writerows(zip(*columns, strict=True))


def _cell(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


@contextmanager
def _file(output: str) -> Iterator[Path]:
    """A local file that takes the output's place when it is whole."""
    place = open_place(output)
    if isinstance(place, Path):
        with replacing(place) as scratch:
            yield scratch
        return
    with tempfile.TemporaryDirectory(prefix="score") as folder:
        scratch = Path(folder) / place.name
        yield scratch
        with explained(place):
            place.fs.put_file(str(scratch), place.path)
