"""Tables read and written: nothing of the user's is changed."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.batch.output import METADATA, check_output, write_output
from cluster.batch.table import read_table
from search.errors import ConfigError, DatasetError

ADDED = ("prob_a", "error")


def a_csv(folder: Path, text: str) -> str:
    (folder / "table.csv").write_text(text, encoding="utf-8")
    return str(folder / "table.csv")


def test_the_text_of_a_csv_stays_as_it_is_and_numbers_are_numbers_where_none_is_changed(
    tmp_path: Path,
) -> None:
    where = a_csv(tmp_path, '\ufeffimage,age,code,mixed,note\n007,60,012,1.50,"a,\nb"\n8,,13,2,\n')
    table = read_table(where, "image", added=ADDED)
    assert table.names == ["007", "8"]
    assert table.rows["code"].to_pylist() == ["012", "13"]
    typed = table.typed()
    assert typed.to_pydict() == {
        "image": ["007", "8"],
        "age": [60, None],
        "code": ["012", "13"],
        "mixed": [1.5, 2.0],
        "note": ["a,\nb", None],
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("image,age\n", r"has no rows"),
        ("name,age\na,1\n", r"no column 'image'; it has name, age\. Name .* by --column"),
        ("image,error\na,1\n", r"has a column 'error' already"),
        ("image,age,age\na,1,2\n", r"two columns are called 'age'"),
        ("image,age\na,1,2\n", r"cannot be read as a table"),
        ("", r"cannot be read as a table"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(DatasetError, match=why):
        read_table(a_csv(tmp_path, text), "image", added=ADDED)


def test_a_table_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no such table"):
        read_table(str(tmp_path / "none.csv"), "image", added=ADDED)
    (tmp_path / "table.parquet").write_text("no Parquet")
    with pytest.raises(DatasetError, match=r"cannot be read as a table"):
        read_table(str(tmp_path / "table.parquet"), "image", added=ADDED)
    with pytest.raises(ConfigError, match=r"TABLE ftp://x/y: a local folder, s3://"):
        read_table("ftp://x/y", "image", added=ADDED)


def test_columns_of_a_parquet_table_keep_their_kinds(tmp_path: Path) -> None:
    rows = pa.table({"image": ["a"], "tags": [["x", "y"]]})
    pq.write_table(rows, tmp_path / "table.parquet")
    table = read_table(str(tmp_path / "table.parquet"), "image", added=ADDED)
    assert table.typed().equals(rows)
    check_output("out.parquet", table.rows.schema)
    with pytest.raises(ConfigError, match=r"CSV cannot hold column 'tags'"):
        check_output("out.csv", table.rows.schema)
    with pytest.raises(ConfigError, match=r"ends with \.parquet or \.csv"):
        check_output("out.xlsx", table.rows.schema)


TABLES = [pa.table({"p": [0.1, None], "n": [True, None], "t": ["a,b", "c"]})] * 2


def test_a_csv_has_all_digits_and_quotes_only_where_they_are_needed(tmp_path: Path) -> None:
    write_output(str(tmp_path / "out.csv"), TABLES, dict)
    two = '0.1,true,"a,b"\n,,c\n'
    assert (tmp_path / "out.csv").read_text() == f"p,n,t\n{two}{two}"


def test_a_parquet_file_tells_what_it_is(tmp_path: Path) -> None:
    write_output(str(tmp_path / "out.parquet"), TABLES, lambda: {"images": 4})
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.to_pydict() == pa.concat_tables(TABLES).to_pydict()
    about = pq.read_metadata(tmp_path / "out.parquet").metadata[METADATA.encode()]
    assert json.loads(about) == {"images": 4}


def test_an_output_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    def broken() -> object:
        yield TABLES[0]
        raise OSError("the disk is full")

    with pytest.raises(OSError, match=r"the disk is full"):
        write_output(str(tmp_path / "out.csv"), broken(), dict)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
