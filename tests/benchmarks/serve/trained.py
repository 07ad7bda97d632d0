"""A bundle that has learned something, and labelled images it has never seen.

Two members, a cheap one and a dear one, by the project's own search and build; the classes differ
in a cast and in a fine ripple, which are learned in a minute.
"""

import json
import shutil
import sys
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from search.config import load_config
from search.data.dataset import load_dataset
from search.data.synthetic import draw_lesion
from search.data.transforms import decode
from tests.benchmarks.serve.material import HEIGHT, WIDTH
from tests.benchmarks.serve.processes import StartError, running, tail

TRAINING, LABELLED = 1500, 600
DRAWN_SIDE = 64
CAST_SPREAD, RIPPLE_SPREAD = 0.4, 0.55  # within a class, where the classes are 1 apart
PERIOD = 10  # pixels of the ripple
SEED = 7
MOST_S = 900
COMMAND = "from cluster.cli import main; main()"
# Each sees what the other cannot, so both are worth a weight: a small picture has no fine ripple,
# and colour constancy takes a cast away.
PORTFOLIO = [
    {"recipe": "cheap", "backbone": "cnn", "image_size": 32, "hidden": 16, "lr": 0.003},
    {
        "recipe": "dear",
        "backbone": "cnn",
        "image_size": 128,
        "colour_constancy": True,
        "hidden": 16,
        "lr": 0.002,
    },
]
DOCUMENT: dict[str, Any] = {
    "name": "trained",
    "output": ".",
    "dataset": {"sources": [{"folder": "data"}], "positive": "malignant"},
    "audit": {"near_duplicates": "keep"},
    "splits": {"test": 0.1, "calibration": 0.4, "folds": 1, "holdout": 0.3},
    "policy": {"sensitivity": 0.9},
    "portfolio": {"recipes": [], "file": "portfolio.yaml"},
    "space": {"backbone": "cnn", "image_size": 32, "lr": {"low": 1e-3, "high": 1e-2, "log": True}},
    "fidelity": {"max_epochs": 6, "grace": 6, "finalists": 0},
    "budget": {"trials": 2},
    "ensemble": {
        "int8": True,
        "test_time_augmentation": "none",
        "bootstrap": 100,
        "corruptions": 0,
        "cascade": {"disagreement": 0.03},
    },
}


@dataclass(frozen=True)
class Trained:
    """A bundle and labelled images.

    Attributes:
        labels: 1 where the image is of the positive class, (n_images,), in the images' order.
    """

    bundle: Path
    images: Path
    labels: NDArray[np.int64]

    @property
    def files(self) -> list[Path]:
        """The images in the labels' order."""
        return sorted(self.images.glob("*.jpg"))


def write_trained(folder: Path, *, log: Path) -> Trained:
    """Draw lesions, search two trials, build, in about two minutes; or take what is there.

    Raises:
        StartError: the search or the build failed.
    """
    labels = np.arange(LABELLED) % 2
    if not (folder / "bundle").is_dir():
        shutil.rmtree(folder, ignore_errors=True)  # of a benchmark that was interrupted
        _draw_all(folder, labels)
        (folder / "portfolio.yaml").write_text(yaml.safe_dump(PORTFOLIO))
        config = folder / "trained.yaml"
        config.write_text(yaml.safe_dump(DOCUMENT))
        for word in ("search", "ensemble"):
            _command(word, config, log)
    return Trained(folder / "bundle", folder / "images", labels)


def _draw_all(folder: Path, labels: NDArray[np.int64]) -> None:
    """Class folders to train on, in data/, and the labelled images, in images/."""
    rng = np.random.default_rng(SEED)
    for name in ("images", "data/benign", "data/malignant"):
        (folder / name).mkdir(parents=True)
    for index in range(TRAINING):
        place = folder / "data" / ("malignant" if index % 2 else "benign")
        (place / f"{index:05}.jpg").write_bytes(_draw(rng, malignant=index % 2 == 1))
    for index, label in enumerate(labels):
        (folder / "images" / f"{index:05}.jpg").write_bytes(_draw(rng, malignant=label == 1))


def take_labelled(bundle: Path, config: Path, folder: Path) -> Trained:
    """A real bundle, with at most 600 images of a real data set, evenly taken from its table.

    Some may be images that the bundle was made from: differences between ways to ask the same
    bundle mean something, its AUROC does not.
    """
    dataset = load_dataset(load_config(config).dataset)
    positive = json.loads((bundle / "bundle.json").read_text())["positive"]
    every = max(len(dataset.table) // LABELLED, 1)
    labels = np.asarray(dataset.labels)[::every] == dataset.classes.index(positive)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for index, path in enumerate(dataset.table["path"].iloc[::every]):
        file = Path(path).read_bytes()
        if not file.startswith(b"\xff\xd8"):
            buffer = BytesIO()
            decode(file).save(buffer, "JPEG", quality=95)
            file = buffer.getvalue()
        (folder / f"{index:05}.jpg").write_bytes(file)
    return Trained(bundle, folder, labels.astype(np.int64))


def _draw(rng: np.random.Generator, *, malignant: bool) -> bytes:
    """A lesion with a red cast and a fine ripple, each by its own noisy level, as a JPEG."""
    pixels = draw_lesion(rng, malignant=malignant, size=DRAWN_SIDE, difficulty=0)
    red, ripple = malignant + rng.normal(0, (CAST_SPREAD, RIPPLE_SPREAD))
    large = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    y, x = np.mgrid[:HEIGHT, :WIDTH] * (2 * np.pi / PERIOD)
    waves = 12 * (1.2 + ripple) * np.sin(x + rng.uniform(0, 6)) * np.sin(y + rng.uniform(0, 6))
    cast = np.array([0.85, 0.8 - 0.1 * red, 0.8 - 0.2 * red])
    tinted = (np.asarray(large) * cast + waves[..., None]).clip(0, 255)
    image = Image.fromarray(tinted.astype(np.uint8))
    file = BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def _command(word: str, config: Path, log: Path) -> None:
    with running([sys.executable, "-c", COMMAND, word, config], log=log) as process:
        code = process.wait(MOST_S)
    if code:
        raise StartError(f"consilium {word} ended with {code}; {log} ends with:\n{tail(log)}")
