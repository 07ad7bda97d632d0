"""Miniatures of the layouts that data sets come in."""

from pathlib import Path
from typing import Any

import pandas as pd

from search.config import DatasetConfig
from tests.tiny import tiny_image


def draw(path: Path, seed: int) -> None:
    """A small JPEG that differs by its seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tiny_image(seed).save(path, quality=95)


def class_folders(root: Path, counts: dict[str, int]) -> Path:
    """`counts` images in each folder named by its path, `Train/melanoma` say."""
    seed = 0
    for name, count in counts.items():
        for _ in range(count):
            draw(root / name / f"ISIC_{seed:07d}.jpg", seed)
            seed += 1
    return root


def image_table(root: Path, rows: list[dict[str, Any]], *, image: str = "image_id") -> Path:
    """metadata.csv and images/<image>.jpg; the table leaves the extension out."""
    for seed, row in enumerate(rows):
        draw(root / "images" / f"{row[image]}.jpg", seed)
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)
    return root / "metadata.csv"


def dataset_config(folder: Path, document: dict[str, Any]) -> DatasetConfig:
    """A dataset section as it would stand in a YAML in `folder`."""
    return DatasetConfig.model_validate(document, context={"folder": folder})
