"""A scoring whose table, images and output lie in an object store."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.batch.order import Asked, read_order
from cluster.batch.score import score
from search.location import open_place, read_bytes
from tests.cluster.batch.folders import write_images, write_table
from tests.rays import started_ray
from tests.servers import s3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.*"),
]
COUNT = 40


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Ray's processes take the credentials from where they start."""
    with s3() as url, started_ray(num_cpus=2):
        yield url


def test_it_comes_out_as_from_folders(bucket: str, tmp_path: Path, bundle: Path) -> None:
    names = [*write_images(tmp_path, COUNT), "absent"]
    table = write_table(tmp_path / "table.csv", names)
    here = Asked(bundle, str(table), str(tmp_path / "out.csv"), [str(tmp_path)], shard=7)
    place: Any = open_place(bucket)
    for path in tmp_path.glob("*.png"):
        (place / "images" / path.name).write_bytes(path.read_bytes())
    (place / "table.csv").write_bytes(table.read_bytes())
    there = replace(
        here,
        table=f"{bucket}/table.csv",
        images=[f"{bucket}/images"],
        output=f"{bucket}/out.csv",
    )
    score(read_order(here))
    score(read_order(there))
    assert read_bytes(place / "out.csv") == Path(here.output).read_bytes()
    names = sorted(str(each).rpartition("/")[2] for each in place.iterdir())
    assert names == ["images", "out.csv", "out.csv.json", "table.csv"]
    about = json.loads(read_bytes(place / "out.csv.json"))
    assert (about["scored"], about["errors"]) == (COUNT, {"missing": 1})
