"""What the benchmarks search: the ISIC experiment where it is at hand, else synthetic lesions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import yaml

from search.config import ExperimentConfig, TableSource, load_config
from search.data.synthetic import write_dataset
from search.params import Params
from search.space import flatten
from tests.experiments import DOCUMENT

ISIC = Path("configs/isic2357.yaml")
SYNTHETIC: dict[str, Any] = {
    "name": "synthetic",
    "objective": "nll",
    "splits": {"test": 0.2, "calibration": 0.15, "folds": 3},
    "portfolio": {"recipes": ["custom_cnn", "cnn_batchnorm"], "override": {"image_size": 64}},
    "space": {
        "backbone": "cnn_batchnorm",
        "image_size": {"choice": [48, 64]},
        "lr": {"low": 3e-4, "high": 3e-3, "log": True},
        "dropout": {"low": 0.1, "high": 0.5},
        "augment.rotation": 180,
        "augment.flip_horizontal": 0.5,
        "augment.zoom": {"low": 0.0, "high": 0.3},
        "augment.brightness": {"low": 0.0, "high": 0.3},
    },
    "fidelity": {"max_epochs": 9, "grace": 3, "reduction": 3, "finalists": 1},
}


@dataclass(frozen=True)
class Material:
    """An experiment and what it is called in the tables."""

    config: ExperimentConfig
    what: str


def find_material(folder: Path, *, quick: bool) -> Material:
    """The ISIC experiment where its images and weights are there; small synthetic if `quick`."""
    if not quick and ISIC.is_file():
        config = load_config(ISIC)
        if _at_hand(config):
            return Material(config, "isic2357, MobileNetV2 fine-tuned")
    n_images = 120 if quick else 1600
    write_dataset(folder / "data", n_images=n_images, size=96)
    file = folder / "synthetic.yaml"
    file.write_text(yaml.safe_dump({**DOCUMENT, **SYNTHETIC}))
    return Material(load_config(file), f"{n_images} synthetic lesions, cnn_batchnorm from scratch")


def _at_hand(config: ExperimentConfig) -> bool:
    tables = [source.table for source in config.dataset.sources if isinstance(source, TableSource)]
    weights = config.weights.folder
    return (
        all(Path(table).is_file() for table in tables) and weights is not None and weights.is_dir()
    )


def write_variant(config: ExperimentConfig, folder: Path, **changes: dict[str, Any]) -> Path:
    """The experiment with some of its settings changed and its output in a folder; its YAML."""
    document = config.model_dump(mode="json", exclude_none=True)
    for name, values in changes.items():
        document[name] = {**document[name], **values}
    folder.mkdir(parents=True)
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({**document, "output": str(folder / "output")}))
    return file


def draw_params(config: ExperimentConfig, count: int) -> list[Params]:
    """Params from the experiment's space, the same ones each time."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(config.seed))
    return [config.space.sample(study.ask()) for _ in range(count)]


def write_portfolio(file: Path, params: list[Params]) -> None:
    """A portfolio of the user's own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump([flatten(p) for p in params]))
