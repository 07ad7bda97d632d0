"""A data set in a bucket is the one on the disk: the same rows by one listing a folder."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from moto.core.authorization import enable_iam_authentication

from search.data.dataset import Dataset, load_dataset
from search.data.folders import open_folder
from search.errors import DatasetError, StudyError
from search.location import ABSENT
from tests.buckets import noted_requests, put, upload
from tests.search.data.layouts import class_folders, dataset_config, image_table
from tests.servers import s3

ROWS: list[dict[str, Any]] = [
    {"image_id": name, "dx": dx, "lesion_id": f"L{i}"}
    for i, (name, dx) in enumerate([("0a", "mel"), ("b", "nv"), ("c.jpg", "nv"), ("none", "mel")])
]
COLUMNS = {"image": "image_id", "label": "dx", "lesion": "lesion_id"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3() as url:
        yield url


def load(folder: Path, *sources: dict[str, Any]) -> Dataset:
    return load_dataset(dataset_config(folder, {"sources": list(sources)}))


def both(folder: Path, here: dict[str, Any], there: dict[str, Any]) -> tuple[Dataset, Dataset]:
    return load(folder, here), load(folder, there)


def assert_alike(here: Dataset, there: Dataset) -> None:
    columns = [name for name in here.table.columns if name != "path"]
    pd.testing.assert_frame_equal(here.table[columns], there.table[columns])
    names = [[Path(path).name for path in dataset.table["path"]] for dataset in (here, there)]
    assert names[0] == names[1]
    assert here.stamps == {}
    assert set(there.stamps) == set(there.table["path"])


@pytest.mark.parametrize(
    "counts",
    [
        {"benign": 2, "malignant": 1, "malignant/deeper": 1, ".hidden": 1},
        {"Train/benign": 2, "Train/malignant": 1, "Test/benign": 1, "Test/malignant": 1},
    ],
)
def test_class_folders_are_the_same_in_a_bucket(
    tmp_path: Path, bucket: str, counts: dict[str, int]
) -> None:
    root = class_folders(tmp_path / "set", counts)
    (root / "README.txt").write_text("no image")
    url = upload(root, f"{bucket}/{len(counts)}{min(counts)}/set")
    put(f"{url}2/other/x.jpg", b"of a neighbour whose name begins alike")
    assert_alike(*both(tmp_path, {"folder": "set"}, {"folder": f"{url}/"}))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_and_its_images_are_the_same_in_a_bucket(
    tmp_path: Path, bucket: str, kind: str
) -> None:
    folder = tmp_path / f"by_{kind}"
    (folder / "images").mkdir(parents=True)
    table = image_table(folder, [{**row, "image_id": row["image_id"][:1]} for row in ROWS])
    pd.DataFrame(ROWS).to_csv(table, index=False)
    pd.DataFrame(ROWS).to_parquet(folder / "metadata.parquet")
    (folder / "images" / "n.jpg").unlink()
    url = upload(folder, f"{bucket}/by_{kind}")
    here, there = (
        {"table": f"{root}/metadata.{kind}", "images": [f"{root}/images"], "columns": COLUMNS}
        for root in (f"by_{kind}", url)
    )
    datasets = both(tmp_path, here, there)
    assert_alike(*datasets)
    path = f"{url}/images/none"
    assert datasets[1].stamps[path] == ABSENT
    assert datasets[1].table["image_id"].tolist() == ["0a", "b", "c", "none"]


def test_a_local_table_may_name_images_in_several_places(tmp_path: Path, bucket: str) -> None:
    image_table(tmp_path, [{**row, "image_id": row["image_id"][:1]} for row in ROWS])
    pd.DataFrame(ROWS).to_csv(tmp_path / "metadata.csv", index=False)
    url = upload(tmp_path / "images", f"{bucket}/several")
    (tmp_path / "images" / "0.jpg").rename(tmp_path / "images" / "0a.jpg")
    images = ["images", url]
    source = {"table": "metadata.csv", "images": images, "columns": COLUMNS, "name": "set"}
    table = load(tmp_path, source).table.set_index("image_id")
    assert table["path"]["0a"] == str(tmp_path / "images" / "0a.jpg")
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "images").mkdir()
    table = load(tmp_path, source).table.set_index("image_id")
    assert table["path"]["b"] == f"{url}/b.jpg"
    assert table["path"]["none"] == str(tmp_path / "images" / "none")


def test_a_folder_takes_one_listing_and_no_request_an_image(tmp_path: Path, bucket: str) -> None:
    url = upload(class_folders(tmp_path / "set", {"a": 5, "b": 5}), f"{bucket}/listed/set")
    with noted_requests() as asked:
        load(tmp_path, {"folder": url})
    assert asked == ["list_objects_v2"]


def test_an_object_that_is_written_again_has_another_stamp(bucket: str) -> None:
    url = f"{bucket}/stamps"
    stamps = []
    for content in (b"abc", b"abd", b"abd"):
        put(f"{url}/a.jpg", content)
        folder = open_folder(url)
        stamps.append(folder.stamp(f"{url}/a.jpg"))
    assert stamps[0] != stamps[1]
    assert [stamp and stamp[0] for stamp in stamps] == [3, 3, 3]
    assert folder.stamp(f"{url}/b.jpg") is None
    assert folder.stamp("s3://another/a.jpg") is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"folder": "{}/absent"}, r"s3://studies/absent: no such folder; mend dataset.sources"),
        ({"folder": "{}/flat"}, r"flat: holds no class folders; expected <class>/<image>.jpg"),
        ({"folder": "{}/poor"}, r"poor/b: a class without images; fill it or take the folder"),
        (
            {"table": "{}/none.csv", "images": ["{}/flat"], "columns": COLUMNS},
            r"s3://studies/none.csv: no such table; mend dataset.sources\[\].table",
        ),
        (
            {"table": "{}/flat/t.csv", "images": ["{}/absent"], "columns": COLUMNS},
            r"s3://studies/absent: no such folder; mend dataset.sources\[\].images",
        ),
        (
            {"table": "{}/flat/t.csv", "images": ["{}/poor"], "columns": COLUMNS},
            r"t.csv: none of its 1 images is in s3://studies/poor \(the first is 'x'\)",
        ),
    ],
)
def test_what_is_missing_in_a_bucket_is_named(
    tmp_path: Path, bucket: str, source: dict[str, Any], message: str
) -> None:
    put(f"{bucket}/flat/x.jpg", b"x")
    put(f"{bucket}/flat/t.csv", b"image_id,dx,lesion_id\nx,mel,L\n")
    put(f"{bucket}/poor/a/y.jpg", b"x")
    put(f"{bucket}/poor/b/notes.txt", b"x")
    told = {
        key: [part.format(bucket) for part in value]
        if isinstance(value, list)
        else value.format(bucket)
        if isinstance(value, str)
        else value
        for key, value in source.items()
    }
    with pytest.raises(DatasetError, match=message):
        load(tmp_path, told)


def test_a_bucket_that_is_missing_or_closed_is_one_line(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(StudyError, match=r"^s3://nowhere/set: there is no such bucket; create"):
        load(tmp_path, {"folder": "s3://nowhere/set"})
    closed = pytest.raises(StudyError, match=r"^s3://studies/set: access denied; check the cred")
    with enable_iam_authentication(), closed:
        load(tmp_path, {"folder": f"{bucket}/set"})
