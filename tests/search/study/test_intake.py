"""From a config to a study's images: what search may see, and what is sealed away."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from search.config import ExperimentConfig
from search.data.splits import splits_hash
from search.errors import AuditError
from search.study.intake import audit_data, take_in
from search.study.records import StudyFolder
from search.study.sealed import open_sealed_test
from tests.search.data.layouts import image_table


def an_experiment(folder: Path, **changes: Any) -> ExperimentConfig:
    """Forty images of twenty lesions, half of them malignant."""
    if not (folder / "metadata.csv").exists():
        rows = [
            {"image_id": f"i{i:02d}", "dx": "mel" if i % 4 < 2 else "nv", "lesion_id": f"L{i // 2}"}
            for i in range(40)
        ]
        image_table(folder, rows)
    columns = {"image": "image_id", "label": "dx", "lesion": "lesion_id"}
    source = {"table": "metadata.csv", "images": ["images"], "columns": columns}
    document = {
        "name": "tiny",
        "output": "out",
        "dataset": {"sources": [source], "positive": "mel"},
        "audit": {"near_distance": 0},
        "splits": {"folds": 2},
        "space": {"backbone": "cnn"},
        **changes,
    }
    return ExperimentConfig.model_validate(document, context={"folder": folder})


def test_the_sealed_test_is_apart_from_what_search_opens(tmp_path: Path) -> None:
    config = an_experiment(tmp_path)
    study = StudyFolder(config.study_folder)
    head = take_in(config, study)
    seen, sealed = study.open_images(), open_sealed_test(study, purpose="a test")
    assert not set(seen["image"]) & set(sealed["image"])
    assert not set(seen["lesion"]) & set(sealed["lesion"])
    assert set(sealed["part"]) == {"test"}
    assert set(seen["part"]) == {"train", "calibration"}
    assert len(seen) + len(sealed) == 40
    assert head.n_images == {
        "train": int((seen["part"] == "train").sum()),
        "calibration": int((seen["part"] == "calibration").sum()),
        "test": len(sealed),
        "dropped": 0,
    }


def test_the_splits_hash_covers_the_sealed_rows(tmp_path: Path) -> None:
    config = an_experiment(tmp_path)
    study = StudyFolder(config.study_folder)
    head = take_in(config, study)
    both = pd.concat([study.open_images(), open_sealed_test(study, purpose="a test")])
    assert splits_hash(both) == head.splits_hash


def test_the_audit_leaves_its_page_even_where_it_stops_the_search(tmp_path: Path) -> None:
    config = an_experiment(tmp_path, audit={"damaged": "error"})
    (tmp_path / "images" / "i03.jpg").write_bytes(b"")
    with pytest.raises(AuditError, match=r"audit: damaged: .*i03.jpg; set audit.damaged: drop in"):
        take_in(config, StudyFolder(config.study_folder))
    assert "i03" in (config.study_folder / "audit.html").read_text()
    assert not (config.study_folder / "splits.parquet").exists()


def test_facts_of_unchanged_files_are_taken_over(tmp_path: Path) -> None:
    config = an_experiment(tmp_path)
    told: list[int] = []
    for _ in range(2):
        told.clear()
        audit_data(config, tmp_path / "audit", lambda what, done, total: told.append(done))
    assert told == []


def test_the_versions_of_the_libraries_are_noted(tmp_path: Path) -> None:
    config = an_experiment(tmp_path)
    versions = take_in(config, StudyFolder(config.study_folder)).versions
    assert {"python", "ray", "optuna", "torch", "timm"} <= set(versions)
