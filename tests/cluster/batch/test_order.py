"""What is asked, and refused before anything starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from cluster.batch.order import Asked, read_order
from cluster.batch.parts import Parts
from search.errors import BundleError, ConfigError, DatasetError
from tests.cluster.batch.folders import write_images, write_table
from tests.cluster.refusals import refusal


@pytest.fixture
def asked(tmp_path: Path, bundle: Path) -> Asked:
    table = write_table(tmp_path / "table.csv", write_images(tmp_path, 5))
    return Asked(bundle, str(table), str(tmp_path / "out.csv"), shard=2)


def test_the_last_shard_has_what_is_left(asked: Asked) -> None:
    order = read_order(asked)
    assert [list(order.rows_of(n)) for n in range(order.n_shards)] == [[0, 1], [2, 3], [4]]


def test_a_small_table_has_smaller_shards(asked: Asked) -> None:
    assert read_order(replace(asked, shard=None)).shard == 16


@pytest.mark.parametrize(
    ("change", "kind", "why"),
    [
        ({"bundle": Path("nowhere")}, BundleError, r"no readable bundle\.json"),
        ({"column": "picture"}, DatasetError, r"no column 'picture'; it has age, image, code"),
        ({"column": "code"}, DatasetError, r"none of its first images is in .*the first is '0000'"),
        ({"images": ["nowhere"]}, DatasetError, r"nowhere: no such folder; mend --images"),
        ({"operating_point": "none"}, BundleError, r"no operating point 'none'"),
        ({"prevalence": {"nevus": 0.1}}, ConfigError, r"no class 'nevus'"),
        ({"gpus": 0.5}, ConfigError, r"--gpus needs --engine torch"),
        ({"output": "ftp://x/out.csv"}, ConfigError, r"--output ftp://x/out\.csv: a local folder"),
    ],
)
def test_what_cannot_be_done_is_refused(
    asked: Asked, change: dict[str, object], kind: type[Exception], why: str
) -> None:
    with pytest.raises(kind, match=why):
        read_order(replace(asked, **change))  # type: ignore[arg-type]


def test_parts_of_another_order_are_refused_by_the_difference(asked: Asked) -> None:
    parts = Parts(asked.output)
    assert parts.begin(read_order(asked).identity()) == set()
    assert parts.begin(read_order(asked).identity()) == set()
    other = read_order(replace(asked, operating_point="balanced")).identity()
    with pytest.raises(
        ConfigError,
        match=r"out\.csv\.parts: belongs to another order, where --operating-point was "
        r"sensitivity_0\.95 and not balanced; ask the same, name another --output, or take it",
    ):
        parts.begin(other)


def test_a_file_that_stands_in_the_outputs_place_is_left_alone(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(asked.output).write_text("mine")
    line = refusal(capsys, "score", asked.bundle, asked.table, "--output", asked.output)
    assert "out.csv: stands there and tells of no order; name another --output" in line
    assert Path(asked.output).read_text() == "mine"


def test_the_command_refuses_in_one_line(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "score", asked.bundle, asked.table, "--column", "picture")
    assert "Name the one with the images by --column" in line
