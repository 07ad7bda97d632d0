"""Every layout becomes one table; what is missing is named."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from search.data.dataset import load_dataset
from search.errors import DatasetError
from tests.search.data.layouts import class_folders, dataset_config, draw, image_table

ROWS: list[dict[str, Any]] = [
    {"image_id": "a", "dx": "mel", "lesion_id": "L1", "age": 40},
    {"image_id": "b", "dx": "nv", "lesion_id": "L1", "age": None},
    {"image_id": "c", "dx": "bkl", "lesion_id": None, "age": 60},
]
COLUMNS = {"image": "image_id", "label": "dx", "lesion": "lesion_id", "patient": None, "age": "age"}


def table_source(**changes: Any) -> dict[str, Any]:
    return {"table": "metadata.csv", "images": ["images"], "columns": COLUMNS, **changes}


def test_class_folders_without_splits(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", {"benign": 2, "malignant": 1})
    dataset = load_dataset(dataset_config(tmp_path, {"sources": [{"folder": "set"}]}))
    assert dataset.classes == ("benign", "malignant")
    assert dataset.labels.tolist() == [0, 0, 1]
    assert dataset.table["split"].tolist() == [None] * 3
    assert dataset.table["image"][2] == "set/malignant/ISIC_0000002.jpg"
    assert dataset.positive is None


def test_split_folders_above_class_folders(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", {"Train/benign": 1, "Train/malignant": 1, "Test/benign": 1})
    dataset = load_dataset(dataset_config(tmp_path, {"sources": [{"folder": "set"}]}))
    assert dict(zip(dataset.table["raw_label"], dataset.table["split"], strict=True)) == {
        "benign": "train",
        "malignant": "train",
    }
    assert dataset.table["split"].tolist() == ["test", "train", "train"]


def test_a_table_finds_images_whose_extension_it_leaves_out(tmp_path: Path) -> None:
    image_table(tmp_path, ROWS)
    dataset = load_dataset(
        dataset_config(
            tmp_path,
            {
                "sources": [table_source()],
                "classes": {"melanoma": ["mel"], "other": "*"},
                "positive": "melanoma",
            },
        )
    )
    assert dataset.labels.tolist() == [0, 1, 1]
    assert dataset.positive == 0
    assert dataset.table["lesion"].tolist() == ["L1", "L1", None]
    assert dataset.metadata == ["age"]
    assert dataset.table["path"][0] == str(tmp_path / "images" / "a.jpg")


def test_sources_join(tmp_path: Path) -> None:
    image_table(tmp_path / "ham", ROWS)
    class_folders(tmp_path / "isic", {"melanoma": 1, "nevus": 1})
    source = table_source(table="ham/metadata.csv", images=["ham/images"])
    document = {
        "sources": [{"folder": "isic"}, source],
        "classes": {"melanoma": ["melanoma", "mel"], "other": "*"},
    }
    dataset = load_dataset(dataset_config(tmp_path, document))
    assert dataset.table["source"].tolist() == ["ham"] * 3 + ["isic"] * 2
    assert dataset.labels.tolist() == [0, 1, 1, 0, 1]


def test_parquet_reads_as_csv_does(tmp_path: Path) -> None:
    path = image_table(tmp_path, ROWS)
    pd.read_csv(path).to_parquet(tmp_path / "metadata.parquet")
    csv, parquet = (
        load_dataset(dataset_config(tmp_path, {"sources": [table_source(table=name)]})).table
        for name in ("metadata.csv", "metadata.parquet")
    )
    pd.testing.assert_frame_equal(csv, parquet)


def test_an_image_that_is_not_there_keeps_its_row_for_the_audit(tmp_path: Path) -> None:
    image_table(tmp_path, ROWS)
    (tmp_path / "images" / "b.jpg").unlink()
    dataset = load_dataset(dataset_config(tmp_path, {"sources": [table_source()]}))
    assert len(dataset.table) == 3
    assert dataset.table["path"][1] == str(tmp_path / "images" / "b")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"folder": "absent"}, "absent: no such folder; mend dataset.sources"),
        (table_source(table="absent.csv"), "absent.csv: no such table"),
        (table_source(images=["absent"]), "absent: no such folder; mend .*images"),
        (
            table_source(columns={"image": "image_id", "label": "diagnosis"}),
            r"has no column 'diagnosis'; it has image_id, dx, lesion_id, age. Name the right one "
            r"under dataset.sources\[0\].columns",
        ),
        (
            table_source(columns={"image": "dx", "label": "dx"}),
            r"none of its 3 images is in .*the first is 'mel'",
        ),
        (
            table_source(columns={**COLUMNS, "split": "dx"}),
            "column 'dx' holds 'bkl'; a split is train, val or test",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, source: dict[str, Any], message: str) -> None:
    image_table(tmp_path, ROWS)
    with pytest.raises(DatasetError, match=message):
        load_dataset(dataset_config(tmp_path, {"sources": [source]}))


def test_a_class_folder_without_images_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", {"benign": 1})
    (tmp_path / "set" / "malignant").mkdir()
    with pytest.raises(DatasetError, match="malignant: a class without images"):
        load_dataset(dataset_config(tmp_path, {"sources": [{"folder": "set"}]}))


def test_a_class_that_no_label_falls_into_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", {"benign": 1, "malignant": 1})
    classes = {"melanoma": ["mel"], "other": "*"}
    with pytest.raises(DatasetError, match="class 'melanoma' has no images"):
        load_dataset(dataset_config(tmp_path, {"sources": [{"folder": "set"}], "classes": classes}))


def test_a_label_of_no_class_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", {"benign": 1, "malignant": 1})
    classes = {"a": ["benign"], "b": ["mel"]}
    with pytest.raises(DatasetError, match="label 'malignant' belongs to no class"):
        load_dataset(dataset_config(tmp_path, {"sources": [{"folder": "set"}], "classes": classes}))


def test_a_label_in_two_classes_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", {"benign": 1, "malignant": 1})
    classes = {"a": ["benign"], "b": ["benign", "malignant"]}
    with pytest.raises(DatasetError, match="names 'benign' twice"):
        load_dataset(dataset_config(tmp_path, {"sources": [{"folder": "set"}], "classes": classes}))


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "set", {"benign": 1})
    with pytest.raises(DatasetError, match="only one class, 'benign'"):
        load_dataset(dataset_config(tmp_path, {"sources": [{"folder": "set"}]}))


def test_two_rows_for_one_image_are_refused(tmp_path: Path) -> None:
    image_table(tmp_path, [*ROWS, ROWS[0]])
    with pytest.raises(DatasetError, match="1 images have more than one row, the first is 'a'"):
        load_dataset(dataset_config(tmp_path, {"sources": [table_source()]}))


def test_a_row_without_a_label_is_refused(tmp_path: Path) -> None:
    image_table(tmp_path, [*ROWS, {"image_id": "d", "dx": None}])
    with pytest.raises(DatasetError, match="1 rows have no label, the first is 'd'"):
        load_dataset(dataset_config(tmp_path, {"sources": [table_source()]}))


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    for half in ("one", "two"):
        draw(tmp_path / half / "set" / "benign" / "x.jpg", 0)
    sources = [{"folder": "one/set"}, {"folder": "two/set"}]
    with pytest.raises(DatasetError, match="two sources are called 'set'"):
        load_dataset(dataset_config(tmp_path, {"sources": sources}))
