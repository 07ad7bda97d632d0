"""Every config in configs/ takes in a miniature of the layout it is written for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ensemble.config import ensemble_config
from search.config import ExperimentConfig, load_config
from search.portfolio import load_portfolio
from search.study.intake import take_in
from search.study.records import StudyFolder
from search.study.sealed import open_sealed_test
from tests.search.data.layouts import class_folders, draw

FOLDER = Path(__file__).parent.parent / "configs"
CONFIGS = sorted(set(FOLDER.glob("*.yaml")) - {FOLDER / "serve.yaml"})  # that one is Serve's
NINE = (
    "actinic keratosis", "basal cell carcinoma", "dermatofibroma", "melanoma", "nevus",
    "pigmented benign keratosis", "seborrheic keratosis", "squamous cell carcinoma",
    "vascular lesion",
)  # fmt: skip
SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def benign_malignant(root: Path) -> Path:
    return class_folders(
        root / "data" / "benign_malignant",
        {"train/benign": 9, "train/malignant": 9, "test/benign": 3, "test/malignant": 3},
    ).parent.parent


def isic2357(root: Path) -> Path:
    folder = root / "shared" / "data" / "isic2357"
    class_folders(folder, {f"{s}/{c}": n for c in NINE for s, n in (("Train", 7), ("Test", 2))})
    rows: list[dict[str, Any]] = [
        {"image": p.relative_to(folder).as_posix(), "split": p.parts[-3].lower()}
        | {"diagnosis": p.parent.name, "lesion_id": None, "age": 50, "sex": "male", "site": "torso"}
        for p in sorted(folder.rglob("*.jpg"))
    ]
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return root


def ham10000(root: Path) -> Path:
    folder = root / "shared" / "data" / "ham10000"
    rows: list[dict[str, Any]] = []
    for i in range(7 * 14):
        draw(folder / "images" / f"ISIC_{i:07d}.jpg", i)
        rows.append(
            {"lesion_id": f"HAM_{i // 14 * 7 + i % 7}", "image_id": f"ISIC_{i:07d}"}
            | {"dx": SEVEN[i // 14], "dx_type": "histo", "age": 50.0, "sex": "female"}
            | {"localization": "back"}
        )
    pd.DataFrame(rows).to_csv(folder / "metadata.csv", index=False)
    return root


def siim2020(root: Path) -> Path:
    folder = root / "data" / "siim2020"
    rows: list[dict[str, Any]] = []
    for i in range(60):
        draw(folder / "jpeg" / "train" / f"ISIC_{i:07d}.jpg", i)
        malignant = i % 3 == 0
        rows.append(
            {"image_name": f"ISIC_{i:07d}", "patient_id": f"IP_{i // 6}_{malignant}"}
            | {"sex": "male", "age_approx": 45.0, "anatom_site_general_challenge": "torso"}
            | {"diagnosis": "unknown", "benign_malignant": "malignant" if malignant else "benign"}
            | {"target": int(malignant)}
        )
    pd.DataFrame(rows).to_csv(folder / "train.csv", index=False)
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "benign_malignant": benign_malignant,
    "ham10000": ham10000,
    "isic2357": isic2357,
    "isic2357_nine": isic2357,
    "siim2020": siim2020,
}


def placed(config: Path, root: Path) -> ExperimentConfig:
    """The config as it would stand in a project beside `shared` and `data`."""
    copy = root / "project" / "configs" / config.name
    copy.parent.mkdir(parents=True)
    copy.write_text(config.read_text())
    (root / "project" / "data").symlink_to(root / "data")
    return load_config(copy)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_whole(config: Path) -> None:
    experiment = load_config(config)
    assert experiment.name == config.stem
    ensemble_config(config, experiment)
    classes = 2 if experiment.dataset.classes else 7
    load_portfolio(experiment.portfolio, n_classes=classes)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_a_miniature_of_the_layout_is_taken_in(config: Path, tmp_path: Path) -> None:
    experiment = placed(config, LAYOUTS[config.stem](tmp_path))
    study = StudyFolder(experiment.study_folder)
    head = take_in(experiment, study)
    seen, test = study.open_images(), open_sealed_test(study, purpose="a test")
    assert head.n_images["dropped"] == 0
    assert set(seen["fold"]) >= set(range(experiment.splits.folds))
    assert set(test["label"]) == set(range(len(head.classes)))
    for link in ("lesion", "patient"):
        assert not set(seen[link].dropna()) & set(test[link].dropna())
    if experiment.splits.given:
        assert set(test["split"]) == {"test"}
