"""A tiny experiment on synthetic lesions, as a YAML beside its data."""

from pathlib import Path
from typing import Any

import yaml

from search.data.synthetic import write_dataset

DOCUMENT: dict[str, Any] = {
    "name": "tiny",
    "output": "out",
    "dataset": {
        "sources": [
            {
                "table": "data/metadata.csv",
                "images": ["data/images"],
                "columns": {
                    "image": "image_id",
                    "label": "dx",
                    "lesion": "lesion_id",
                    "patient": "patient_id",
                    "age": "age",
                },
            }
        ],
        "positive": "malignant",
    },
    "splits": {"test": 0.25, "calibration": 0.25, "folds": 2},
    "portfolio": {"recipes": ["custom_cnn"], "override": {"image_size": 24, "hidden": 8}},
    "space": {
        "backbone": "cnn_batchnorm",
        "image_size": {"choice": [16, 24]},
        "lr": {"low": 1e-3, "high": 1e-2, "log": True},
        "batch_size": 8,
    },
    "fidelity": {"max_epochs": 2, "reduction": 2},
    "budget": {"trials": 3},
    "ensemble": {
        "budget": {"members": 2},
        "golden": 2,
        "corruptions": 4,
        "bootstrap": 100,
        "test_time_augmentation": "none",
    },
}


def write_experiment(folder: Path, **changes: Any) -> Path:
    """Some sixty lesion images of 32 pixels and the YAML; the YAML's path."""
    write_dataset(folder / "data", n_images=64, size=32, difficulty=0)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**DOCUMENT, **changes}))
    return path
