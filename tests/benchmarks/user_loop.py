"""What a user would write instead: Optuna, a DataLoader, a torch loop, one trial after the other.

python -m tests.benchmarks.user_loop FOLDER, which holds images.csv (path, label, validates) and
task.json (params, epochs, n_classes, weights); it leaves results.json and weights/ there.

Only the network, the optimizer and its schedule come from this project, so that all train the same.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import albumentations as A  # noqa: N812 - everybody's name for it
import cv2
import numpy as np
import optuna
import pandas as pd
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from search.config import WeightsConfig
from search.params import Params
from search.training.backbones import Classifier, build_classifier, freeze
from search.training.optimise import LearningRate, build_optimizer

WORKERS = os.cpu_count() or 1


class Images(Dataset[tuple[Tensor, int]]):
    """Decodes an image whenever it is asked for."""

    def __init__(self, table: pd.DataFrame, size: int, transform: A.Compose) -> None:
        self.paths, self.labels = table["path"].tolist(), table["label"].tolist()
        self.size, self.transform = size, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            pixels = image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        return self.transform(image=np.asarray(pixels))["image"], self.labels[index]


def augmentation(params: Params) -> list[Any]:
    """The same kinds and strengths of changes as the search makes."""
    a = params.augment
    return [
        A.HorizontalFlip(p=a.flip_horizontal),
        A.VerticalFlip(p=a.flip_vertical),
        A.Affine(
            rotate=(-a.rotation, a.rotation),
            scale=(1 - a.zoom, 1 + a.zoom),
            keep_ratio=True,
            translate_percent=(-a.shift, a.shift),
            border_mode=cv2.BORDER_REFLECT_101,
            p=1,
        ),
        A.ColorJitter(
            brightness=(1 - a.brightness, 1 + a.brightness),
            contrast=(1 - a.contrast, 1 + a.contrast),
            saturation=(1 - a.saturation, 1 + a.saturation),
            hue=(0, 0),
            p=1,
        ),
    ]


def loaders(
    table: pd.DataFrame, params: Params, classifier: Classifier
) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Of the training and the validation images."""
    scale = classifier.preprocessing
    last = [A.Normalize(mean=scale.mean, std=scale.std), ToTensorV2()]
    train = Images(
        table[~table["validates"]],
        params.image_size,
        A.Compose([*augmentation(params), *last]),
    )
    val = Images(table[table["validates"]], params.image_size, A.Compose(last))
    options: dict[str, Any] = {"num_workers": WORKERS, "persistent_workers": True}
    alone = len(train) % params.batch_size == 1  # one image has no batch statistics
    return (
        DataLoader(train, params.batch_size, shuffle=True, drop_last=alone, **options),
        DataLoader(val, 64, **options),
    )


def train_epoch(
    classifier: Classifier,
    batches: DataLoader[Any],
    optimizer: torch.optim.Optimizer,
    rate: LearningRate,
) -> None:
    loss_of = torch.nn.CrossEntropyLoss()
    classifier.train()
    for images, labels in batches:
        loss = loss_of(classifier.classify(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rate.after_step()


def evaluate(classifier: Classifier, batches: DataLoader[Any]) -> dict[str, float]:
    """NLL, and the AUROC where there are two classes."""
    classifier.eval()
    with torch.inference_mode():
        found = [(classifier.classify(x).double().softmax(dim=1), y) for x, y in batches]
    probs = torch.cat([p for p, _ in found]).numpy()
    labels = torch.cat([y for _, y in found]).numpy()
    metrics = {"nll": float(log_loss(labels, probs, labels=range(probs.shape[1])))}
    if probs.shape[1] == 2:
        metrics["auroc"] = float(roc_auc_score(labels, probs[:, 1]))
    return metrics


def train(folder: Path, number: int, task: dict[str, Any], table: pd.DataFrame) -> dict[str, float]:
    """Train one trial and keep its best epoch."""
    params = Params.model_validate(task["params"][number])
    torch.manual_seed(0)
    weights = WeightsConfig.model_validate(task["weights"])
    classifier = build_classifier(params, task["n_classes"], weights, seed=0)
    if task["channels_last"]:
        classifier.to(memory_format=torch.channels_last)
    freeze(classifier, params.unfreeze, keep_statistics=params.keep_statistics)
    train_batches, val_batches = loaders(table, params, classifier)
    optimizer = build_optimizer(classifier, params)
    rate = LearningRate(optimizer, params, epochs=task["epochs"], steps=len(train_batches))
    best = {"nll": float("inf")}
    for _ in range(task["epochs"]):
        train_epoch(classifier, train_batches, optimizer, rate)
        metrics = evaluate(classifier, val_batches)
        rate.after_epoch(metrics["nll"])
        if metrics["nll"] < best["nll"]:
            best = metrics
            save_file(classifier.state_dict(), folder / "weights" / f"{number}.safetensors")
    return best


def main(folder: Path) -> None:
    """All trials, then the results."""
    cv2.setNumThreads(0)  # the DataLoader's workers are enough
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    task = json.loads((folder / "task.json").read_text())
    table = pd.read_csv(folder / "images.csv")
    (folder / "weights").mkdir()
    found: list[dict[str, float]] = []

    def objective(trial: optuna.Trial) -> float:
        begin = time.time()
        found.append(train(folder, trial.number, task, table))
        seconds = time.time() - begin
        line = f"trial {trial.number}: nll {found[-1]['nll']:.4f}, {seconds:.1f} s\n"
        sys.stderr.write(line)
        return found[-1]["nll"]

    study = optuna.create_study(direction="minimize")
    study.optimize(objective, n_trials=len(task["params"]))
    (folder / "results.json").write_text(json.dumps({"trials": found, "end": time.time()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
