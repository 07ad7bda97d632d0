"""The synthetic dataset: repeatable, whole, and not to be told apart by a trivial cue."""

import csv
import hashlib
import subprocess
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import search.data.synthetic
from search.data.synthetic import draw_lesion, draw_signs, write_dataset
from search.errors import DatasetError

Picture = NDArray[np.uint8]
TINY: dict[str, Any] = {"n_images": 8, "size": 32}


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digest(folder: Path) -> str:
    """Of every file's name and bytes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    parts = [str(path.relative_to(folder)).encode() + path.read_bytes() for path in files]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_dataset(tmp_path / name, seed=seed, **TINY)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    a, c = ({path.read_bytes() for path in tmp_path.glob(f"{name}/images/*")} for name in "ac")
    assert len(a | c) == 16


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    write_dataset(tmp_path / "here", seed=3, **TINY)
    code = (
        "import sys, pathlib; from search.data.synthetic import write_dataset; "
        "write_dataset(pathlib.Path(sys.argv[1]), seed=3, n_images=8, size=32)"
    )
    root = Path(search.data.synthetic.__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, tmp_path / "there"], check=True, cwd=root)
    assert digest(tmp_path / "there") == digest(tmp_path / "here")


def test_a_dataset_that_is_there_is_reused(tmp_path: Path) -> None:
    table = write_dataset(tmp_path / "data", **TINY)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert write_dataset(tmp_path / "data", **TINY) == table
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_empty_folder_is_filled_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    assert len(rows_of(write_dataset(folder, **TINY))) == 8
    assert list(tmp_path.iterdir()) == [folder]


def test_writing_that_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    with pytest.raises(DatasetError, match="data: no space left on device; name another folder"):
        write_dataset(tmp_path / "data", **TINY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("spoil", ["another seed", "an image lost", "foreign files", "a file"])
def test_a_folder_that_holds_something_else_is_refused_and_kept(tmp_path: Path, spoil: str) -> None:
    folder = tmp_path / "data"
    if spoil == "a file":
        folder.write_text("mine")
    elif spoil == "foreign files":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    else:
        write_dataset(folder, seed=int(spoil == "another seed"), **TINY)
    if spoil == "an image lost":
        next((folder / "images").iterdir()).unlink()
    before = digest(folder)
    with pytest.raises(DatasetError, match=r"data holds something other than .* remove this one"):
        write_dataset(folder, **TINY)
    assert digest(folder) == before


@pytest.mark.parametrize(
    ("name", "value"), [("difficulty", 1.5), ("prevalence", -0.1), ("n_images", 0), ("size", 8)]
)
def test_an_argument_out_of_range_is_named(tmp_path: Path, name: str, value: float) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(DatasetError, match=f"{name} is {value}; .* should be"):
        write_dataset(tmp_path / "data", **arguments)
    assert list(tmp_path.iterdir()) == []


@given(st.integers(0, 999), st.booleans(), st.floats(0, 1), st.floats(0, 1))
def test_a_harder_lesion_shows_every_sign_of_its_class_less(
    seed: int, malignant: bool, one: float, other: float
) -> None:
    easy, hard = (
        np.array(draw_signs(np.random.default_rng(seed), malignant=malignant, difficulty=value))
        for value in (min(one, other), max(one, other))
    )
    assert np.all(easy >= hard if malignant else easy <= hard)


def test_a_drawn_lesion_has_the_size_asked_for_and_repeats() -> None:
    rngs = [np.random.default_rng(seed) for seed in (1, 1, 2)]
    one, again, other = (draw_lesion(rng, malignant=True, size=48) for rng in rngs)
    assert one.shape == (48, 48, 3)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


class Cohort:
    """300 images of 96 pixels at difficulty 0.3, read back."""

    def __init__(self, table: Path) -> None:
        self.rows = rows_of(table)
        files = [table.parent / "images" / f"{row['image_id']}.jpg" for row in self.rows]
        self.images = np.stack([np.asarray(Image.open(file)) for file in files])
        self.file_sizes = np.array([file.stat().st_size for file in files], np.float64)
        self.malignant = np.array([row["dx"] == "malignant" for row in self.rows])
        self.lesions = [row["lesion_id"] for row in self.rows]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    return Cohort(write_dataset(folder, n_images=300, size=96))


def test_ids_nest_and_a_lesion_has_one_diagnosis(cohort: Cohort) -> None:
    groups = defaultdict(list)
    for row in cohort.rows:
        groups[row["lesion_id"]].append(row)
        groups[row["patient_id"]].append(row)
    assert len({row["image_id"] for row in cohort.rows}) == 300
    for group, rows in groups.items():
        if group.startswith("L"):
            assert len({(row["patient_id"], row["dx"], row["site"]) for row in rows}) == 1
            assert 1 <= len(rows) <= 3
        else:
            assert len({(row["age"], row["sex"]) for row in rows}) == 1
            assert 1 <= len({row["lesion_id"] for row in rows}) <= 4


def test_metadata_is_plausible_with_some_blanks(cohort: Cohort) -> None:
    for column, known in (("age", range(15, 86, 5)), ("sex", ("female", "male"))):
        values = [row[column] for row in cohort.rows]
        assert 0 < values.count("") < 45
        assert {value for value in values if value} <= {str(value) for value in known}


def test_the_prevalence_is_counted_over_lesions(cohort: Cohort, tmp_path: Path) -> None:
    classes = list({row["lesion_id"]: row["dx"] for row in cohort.rows}.values())
    assert classes.count("malignant") == round(0.35 * len(classes))
    rare = rows_of(write_dataset(tmp_path / "rare", prevalence=0.01, **TINY))
    assert {row["dx"] for row in rare} == {"benign", "malignant"}


def trivial_cues(cohort: Cohort) -> dict[str, NDArray[np.float64]]:
    """What a shortcut could live on, one number an image."""
    grey = cohort.images.mean(axis=3)
    lesion = np.stack([segment(image) for image in cohort.images]).astype(np.float64)
    area, dark = lesion.mean(axis=(1, 2)), 0.7 * np.median(grey, axis=(1, 2), keepdims=True)
    return {
        **{name: cohort.images[..., i].mean(axis=(1, 2)) for i, name in enumerate("RGB")},
        "spread": grey.std(axis=(1, 2)),
        "file size": cohort.file_sizes,
        "dark pixels": (grey < dark).mean(axis=(1, 2)),
        "lesion area": area,
        "lesion grey": (lesion * grey).mean(axis=(1, 2)) / area / grey.mean(axis=(1, 2)),
        "edge energy": np.hypot(*np.gradient(grey, axis=(1, 2))).mean(axis=(1, 2)),
        "age": np.array([float(row["age"] or 50) for row in cohort.rows]),
    }


def segment(image: Picture) -> Picture:
    """The blob nearest the middle that differs from the skin around it, (size, size) of 0, 1."""
    lab = cv2.cvtColor(cv2.medianBlur(image, 7), cv2.COLOR_RGB2LAB).astype(np.float64)
    size, across = len(image), np.arange(len(image)) - len(image) / 2
    radius = np.hypot(across, across[:, None]) / size
    skin = np.median(lab[(radius > 0.42) & (radius < 0.48)], axis=0)
    contrast = np.where(radius < 0.48, np.linalg.norm(lab - skin, axis=2), 0)
    _, mask = cv2.threshold(np.clip(2 * contrast, 0, 255).astype(np.uint8), 0, 1, cv2.THRESH_OTSU)
    _, blobs, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    away = np.hypot(*(centres[1:] - size / 2).T) / (0.15 * size)
    return np.asarray(blobs == 1 + np.argmax(stats[1:, 4] / (1 + away**2)), np.uint8)


def abcd(image: Picture) -> list[float]:
    """Asymmetry about two axes, border irregularity, spread of three colour channels."""
    mask, size = segment(image), len(image)
    ys, xs = np.nonzero(mask)
    centre, (_, axes) = (float(xs.mean()), float(ys.mean())), np.linalg.eigh(np.cov(xs, ys))
    tilt = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
    upright = np.asarray(cv2.getRotationMatrix2D(centre, tilt, 1), np.float64)
    upright[:, 2] += size / 2 - np.array(centre)
    turned = cv2.warpAffine(mask, upright, (size + 1, size + 1))
    flips = [np.sum(turned != np.flip(turned, axis)) / len(ys) for axis in (0, 1)]
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    border = cv2.arcLength(max(outlines, key=len), True) ** 2 / len(ys)
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 1.5), cv2.COLOR_RGB2LAB)
    return [*flips, border, *lab[mask > 0].std(axis=0)]


def test_no_trivial_cue_tells_the_classes_apart(cohort: Cohort) -> None:
    # Over 20 datasets the largest deviation of any cue was 0.114 (a file size).
    for name, cue in trivial_cues(cohort).items():
        assert abs(roc_auc_score(cohort.malignant, cue) - 0.5) < 0.15, name


def test_the_abcd_rule_does_tell_them_apart(cohort: Cohort) -> None:
    features = np.array([abcd(image) for image in cohort.images])
    rule = make_pipeline(StandardScaler(), LogisticRegression())
    folds = list(GroupKFold(5).split(features, cohort.malignant, cohort.lesions))
    probs = cross_val_predict(rule, features, cohort.malignant, cv=folds, method="predict_proba")
    assert roc_auc_score(cohort.malignant, probs[:, 1]) > 0.8


def test_the_signs_fade_from_the_images_as_difficulty_rises() -> None:
    malignant, aurocs = np.arange(80) < 40, []
    for difficulty in (0.0, 0.5, 1.0):
        draw = partial(draw_lesion, size=64, difficulty=difficulty)
        images = [draw(np.random.default_rng(i), malignant=i < 40) for i in range(80)]
        aurocs.append(roc_auc_score(malignant, [abcd(image)[2] for image in images]))
    assert aurocs[0] > aurocs[1] > aurocs[2]
