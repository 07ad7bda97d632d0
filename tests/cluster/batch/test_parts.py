"""Parts of an order: nothing of another one is mixed in, and one command at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.batch.order import Asked, read_order
from cluster.batch.parts import Parts
from cluster.batch.score import score
from search.errors import ConfigError, DatasetError
from search.location import list_files, open_place
from tests.cluster.batch.folders import write_images, write_table
from tests.servers import s3

ORDER: dict[str, Any] = {"bundle": "0" * 64, "shard": 2}
PART = pa.table({"prob_a": [0.1, None], "error": [None, "missing"]})


@pytest.fixture(params=["folder", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "out.csv")
        return
    with s3() as bucket:
        yield f"{bucket}/out.csv"


def begun(output: str) -> Parts:
    parts = Parts(output)
    parts.begin(ORDER)
    return parts


def test_what_was_written_is_there_when_the_same_order_goes_on(output: str) -> None:
    begun(output).write(3, PART)
    again = Parts(output)
    assert again.begin(dict(reversed(ORDER.items()))) == {3}
    assert again.read(3).equals(PART)


def test_parts_without_their_order_are_taken_away(output: str) -> None:
    begun(output).write(0, PART)
    place: Any = open_place(f"{output}.parts")
    (place / ".00001.parquet.0a1b2c3d.tmp").write_bytes(b"half")
    (place / "notes.txt").write_bytes(b"mine")
    (place / "order.json").unlink()
    assert Parts(output).begin(ORDER) == set()
    assert set(list_files(place)) == {"order.json", "notes.txt"}


def test_a_part_of_another_order_or_a_damaged_one_is_not_done(output: str) -> None:
    parts = begun(output)
    for number in range(4):
        parts.write(number, PART)
    place: Any = open_place(f"{output}.parts")
    other = Parts(output.replace("out", "other"))
    other.begin(ORDER | {"shard": 3})
    other.write(1, PART)
    theirs: Any = open_place(f"{other.location}/00001.parquet")
    (place / "00001.parquet").write_bytes(theirs.read_bytes())
    (place / "00002.parquet").write_bytes(b"half")
    again = Parts(output)
    assert again.begin(ORDER) == {0, 3}
    with pytest.raises(DatasetError, match=r"00001\.parquet: of another order; run the same"):
        again.read(1)
    with pytest.raises(DatasetError, match=r"00002\.parquet: gone or damaged; take it away"):
        again.read(2)


def test_a_part_that_tells_no_order_is_not_done(tmp_path: Path) -> None:
    begun(str(tmp_path / "out.csv"))
    pq.write_table(PART, tmp_path / "out.csv.parts" / "00000.parquet")
    assert Parts(str(tmp_path / "out.csv")).begin(ORDER) == set()


def test_a_second_command_on_the_same_output_is_refused(tmp_path: Path, bundle: Path) -> None:
    table = write_table(tmp_path / "table.csv", write_images(tmp_path, 2))
    order = read_order(Asked(bundle, str(table), str(tmp_path / "new" / "out.csv")))
    with (
        Parts(order.asked.output).alone(),
        pytest.raises(ConfigError, match=r"new/out\.csv: another command scores into this output"),
    ):
        score(order)
    assert not Path(f"{order.asked.output}.parts").exists()


def test_the_lock_is_let_go_of_whatever_ends_a_scoring(tmp_path: Path) -> None:
    parts = Parts(str(tmp_path / "out.csv"))
    with pytest.raises(OSError, match=r"^full$"), parts.alone():
        raise OSError("full")
    with parts.alone(), Parts(str(tmp_path / "other.csv")).alone():
        names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".other.csv.lock", ".out.csv.lock"]
