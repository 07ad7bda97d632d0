"""A synthetic dermoscopy dataset: images and a metadata table, the same for the same arguments."""

import csv
import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, ValidationError

from search.data.lesion import Signs, draw_skin, paint, photograph
from search.errors import DatasetError
from search.params import Config, Share

TABLE, RECORD = "metadata.csv", "synthetic.json"
COLUMNS = ("image_id", "dx", "lesion_id", "patient_id", "age", "sex", "site")
SITES = ("back", "trunk", "lower extremity", "upper extremity", "abdomen", "face", "neck")
SITE_SHARES = (0.26, 0.2, 0.2, 0.14, 0.1, 0.06, 0.04)
BLANK = 0.06  # share of each metadata field that is left empty
VERSION = 1  # of the drawing; raise it when the same arguments give other images

# One random stream per kind of thing, so that a patient or a lesion can be drawn on its own.
_LAYOUT, _PATIENT, _LESION, _PHOTOGRAPH = range(4)


class SyntheticConfig(Config):
    """What is drawn; the same values always give the same files."""

    version: int = VERSION
    n_images: int = Field(240, ge=4, le=100_000)
    seed: int = Field(0, ge=0, lt=2**31)
    size: int = Field(128, ge=32, le=1024, description="pixels a side")
    difficulty: Share = Field(0.3, description="0 signs that hardly overlap, 1 hard to tell apart")
    prevalence: Share = Field(0.35, description="share of the lesions that are malignant")


def draw_lesion(
    rng: np.random.Generator, *, malignant: bool, size: int = 128, difficulty: float = 0.3
) -> NDArray[np.uint8]:
    """Draw a new lesion on new skin, photographed once: (size, size, 3) RGB."""
    signs = draw_signs(rng, malignant=malignant, difficulty=difficulty)
    return photograph(paint(rng, signs, size=size), rng, skin=draw_skin(rng))


def draw_signs(rng: np.random.Generator, *, malignant: bool, difficulty: float) -> Signs:
    """Draw the four signs; at difficulty 1 the classes overlap most, at 0 least."""
    shift = (1.6 - 1.1 * difficulty) * (1 if malignant else -1)
    scores = shift + 0.45 * rng.standard_normal() + 0.8 * rng.standard_normal(4)
    return Signs(*(float(1 / (1 + np.exp(-1.4 * score))) for score in scores))


class _Entry(NamedTuple):
    """One lesion of the plan; its photographs are numbered from `first`."""

    number: int
    patient: int
    malignant: bool
    first: int
    n_images: int


def write_dataset(
    folder: Path,
    *,
    n_images: int = 240,
    seed: int = 0,
    size: int = 128,
    difficulty: float = 0.3,
    prevalence: float = 0.35,
) -> Path:
    """Draw a dataset into a folder, or reuse the one that is there.

    The folder holds `images/*.jpg`, `metadata.csv` (one row an image: image_id, dx, lesion_id,
    patient_id, age, sex, site) and `synthetic.json` (the arguments). It appears whole or not at
    all. Same arguments and library versions give the same bytes.

    Returns:
        the table's path.

    Raises:
        DatasetError: for an argument out of its range, or a folder that holds something else or
            cannot be written.
    """
    config = _config(
        n_images=n_images, seed=seed, size=size, difficulty=difficulty, prevalence=prevalence
    )
    if _is_written(folder, config):
        return folder / TABLE
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as sibling:
            draft = Path(sibling, "dataset")
            _write(draft, config)
            draft.rename(folder)
    except OSError as error:
        if not _is_written(folder, config):  # it is where another process was faster
            reason = (error.strerror or "cannot be written").lower()
            raise DatasetError(f"{folder}: {reason}; name another folder") from error
    return folder / TABLE


def _config(**values: float) -> SyntheticConfig:
    try:
        return SyntheticConfig.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        name, value = problem["loc"][0], problem["input"]
        raise DatasetError(f"synthetic data: {name} is {value!r}; {problem['msg']}") from error


def _is_written(folder: Path, config: SyntheticConfig) -> bool:
    """Whether the folder already holds exactly this dataset.

    Raises:
        DatasetError: if it holds anything else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        n_images = len(list((folder / "images").glob("*.jpg")))
    except (OSError, ValueError):
        record, n_images = None, 0
    if record == config.model_dump() and n_images == config.n_images and (folder / TABLE).is_file():
        return True
    raise DatasetError(
        f"{folder} holds something other than the synthetic dataset asked for; "
        "name another folder or remove this one"
    )


def _write(folder: Path, config: SyntheticConfig) -> None:
    (folder / "images").mkdir(parents=True)
    rows: list[Sequence[str]] = []
    for entry in _plan(config):
        rows += _write_lesion(folder, config, entry)
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    (folder / RECORD).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _plan(config: SyntheticConfig) -> list[_Entry]:
    """Patients of 1 to 4 lesions of 1 to 3 photographs, until there are enough images."""
    rng = np.random.default_rng([config.seed, _LAYOUT])
    owners: list[int] = []
    edges = [0]  # where one lesion's photographs end and the next one's begin
    for patient in itertools.count():
        for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.5, 0.25, 0.15, 0.1]))):
            if edges[-1] < config.n_images:
                n_images = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
                owners.append(patient)
                edges.append(min(edges[-1] + n_images, config.n_images))
        if edges[-1] == config.n_images:
            break
    # Counted, not tossed: a small dataset must hold both classes where both are asked for.
    share, total = config.prevalence, len(owners)
    n_malignant = min(max(round(share * total), share > 0), total - (share < 1))
    classes = (rng.permutation(total) < n_malignant).tolist()
    numbers, sizes = range(total), np.diff(edges).tolist()
    parts = zip(numbers, owners, classes, edges[:-1], sizes, strict=True)
    return [_Entry(*values) for values in parts]


def _write_lesion(folder: Path, config: SyntheticConfig, entry: _Entry) -> list[Sequence[str]]:
    """Draw every photograph of a lesion; returns their rows of the table."""
    of_patient = np.random.default_rng([config.seed, _PATIENT, entry.patient])
    of_lesion = np.random.default_rng([config.seed, _LESION, entry.number])
    skin, (age, sex) = draw_skin(of_patient), _person(of_patient)
    site = _or_blank(of_lesion, str(of_lesion.choice(SITES, p=SITE_SHARES)))
    signs = draw_signs(of_lesion, malignant=entry.malignant, difficulty=config.difficulty)
    lesion = paint(of_lesion, signs, size=config.size)
    dx = "malignant" if entry.malignant else "benign"
    rows: list[Sequence[str]] = []
    for index in range(entry.first, entry.first + entry.n_images):
        view = np.random.default_rng([config.seed, _PHOTOGRAPH, index])
        name = f"SYN_{index:06d}"
        picture = Image.fromarray(photograph(lesion, view, skin=skin))
        picture.save(folder / "images" / f"{name}.jpg", quality=90)
        rows.append((name, dx, f"L{entry.number:05d}", f"P{entry.patient:05d}", age, sex, site))
    return rows


def _person(rng: np.random.Generator) -> tuple[str, str]:
    """Age in steps of 5 years, as dermoscopy archives round it, and sex; either may be blank."""
    age = int(5 * np.clip(round(rng.normal(10.5, 3.2)), 3, 17))
    return _or_blank(rng, str(age)), _or_blank(rng, str(rng.choice(["female", "male"])))


def _or_blank(rng: np.random.Generator, value: str) -> str:
    return "" if rng.random() < BLANK else value
