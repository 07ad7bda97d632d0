"""Study folders of handmade records: nothing is trained, so a thousand trials take seconds."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.trial import create_trial

from search.atomic import write_json
from search.space import unflatten
from search.study.records import StudyFolder, StudyHead, TrialRecord

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
BACKBONES = ["cnn", "mobilenetv2_035", "resnet50"]
SPACE: dict[str, Any] = {
    "backbone": {"choice": BACKBONES},
    "image_size": {"choice": [96, 128]},
    "lr": {"low": 1e-5, "high": 1e-1, "log": True},
    "dropout": {"low": 0.0, "high": 0.5},
    "keep_statistics": {"choice": [True, False], "when": {"backbone": ["mobilenet*"]}},
    "augment.rotation": 180,
}
HEAD = StudyHead(
    name="tiny",
    created=BEGUN.isoformat(),
    classes=["benign", "malignant"],
    positive="malignant",
    objective="nll",
    objectives=["nll"],
    seed=0,
    data_digest="d",
    splits_hash="s",
    n_images={"train": 1400, "calibration": 300, "test": 400, "dropped": 7},
    versions={"python": "3.11", "torch": "2.15"},
)


def write_study(
    folder: Path, records: list[TrialRecord], *, seconds: float | None = 100, **changes: Any
) -> StudyFolder:
    """A study folder of records, those of other folds too.

    `changes` are keys of the config; `positive` and `classes` go to the head as well.
    """
    classes = changes.pop("classes", HEAD.classes)
    positive = changes.pop("positive", HEAD.positive)
    objective = changes.get("objective", "nll")
    objectives = [objective] if isinstance(objective, str) else objective
    study = StudyFolder(folder)
    told = {"classes": classes, "positive": positive, "objective": objectives[0]}
    study.write_head(HEAD.model_copy(update=told | {"objectives": objectives}))
    document = {
        "name": "tiny",
        "output": str(folder.parent),
        "dataset": {"sources": [{"folder": "data"}], "positive": positive},
        "space": SPACE,
        **changes,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    if seconds is not None:
        write_json(folder / "clock.json", {"seconds": seconds})
    for record in records:
        study.write_record(record)
    return study


def trial(number: int, losses: list[float], /, **changes: Any) -> TrialRecord:
    """A trial with these log losses by epoch, each of ten seconds, on one of two workers.

    Its backbone, lr and dropout follow from its number.
    """
    flat = {
        "backbone": BACKBONES[number % 3],
        "image_size": (96, 128)[number % 2],
        "lr": 10 ** (-1 - number % 5),
        "dropout": round(0.1 + 0.05 * (number % 8), 2),
    }
    best = min(losses, default=None)
    document: dict[str, Any] = {
        "number": number,
        "status": "complete",
        "params": unflatten({**flat, **changes.pop("params", {})}),
        "fold": 0,
        "value": best,
        "values": {} if best is None else {"nll": best},
        "best_epoch": None if best is None else losses.index(best) + 1,
        "costs": {"params_m": 0.5 + number % 3},
        "started": (BEGUN + timedelta(seconds=number // 2 * 40)).isoformat(),
        "seconds": 10.0 * len(losses) + 2,
        "worker": f"node:{100 + number % 2}",
        "epochs": [epoch(value) for value in losses],
    }
    return TrialRecord.model_validate(document | changes)


def epoch(value: float) -> dict[str, float | None]:
    """Metrics of an epoch: what follows from a log loss, roughly."""
    good = math.exp(-value)
    return {
        "nll": value,
        "auroc": 0.5 + good / 2,
        "sensitivity_at_threshold": 0.95,
        "specificity_at_threshold": good,
        "threshold": 0.1,
        "ece": None,
        "train_seconds": 8.0,
        "val_seconds": 1.0,
    }


def every_kind() -> list[TrialRecord]:
    """Eleven trials: all that a page may have to show, finalists' folds included."""
    failed = {"status": "failed", "gpu_hours": 0.25}
    return [
        trial(0, [0.9, 0.6, 0.5], recipe="custom_cnn"),
        trial(1, [0.8, 0.4, 0.45]),
        trial(2, [1.2], status="pruned"),
        trial(3, [0.7, 0.3, 0.35]),
        trial(4, [], **failed, error="the loss is nan in epoch 1; lower lr"),
        trial(5, [0.9], **failed, error="the loss is nan in epoch 2; lower lr"),
        trial(6, [], **failed, error="the worker died", again=True),
        trial(7, [0.6, 0.2, 0.25], violations={"params_m": 0.5}),
        trial(8, [1.1], status="pruned", micro_batch=8, workers=2),
        trial(9, [0.7, 0.6, 0.55]),
        trial(10, [0.9], status="running"),
        *[trial(3, [0.7, 0.3 + 0.02 * fold], fold=fold) for fold in (1, 2, 3)],
        *[trial(1, [0.7, 0.5 + 0.02 * fold], fold=fold) for fold in (1, 2, 3)],
    ]


def optuna_study(records: list[TrialRecord]) -> optuna.Study:
    """The trials of records in a storage in memory, as the search would have told them."""
    study = optuna.create_study(direction="minimize")
    lr = optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True)
    backbone = optuna.distributions.CategoricalDistribution(BACKBONES)
    keep = optuna.distributions.CategoricalDistribution([True, False])
    for record in records:
        if record.fold == 0 and record.status == "complete":
            params: dict[str, Any] = {"lr": record.params.lr, "backbone": record.params.backbone}
            laws: dict[str, Any] = {"lr": lr, "backbone": backbone}
            if record.params.backbone.startswith("mobilenet"):  # conditional
                params["keep_statistics"] = record.params.keep_statistics
                laws["keep_statistics"] = keep
            study.add_trial(create_trial(value=record.value, params=params, distributions=laws))
    return study


def many_trials(count: int, *, slots: int = 64, seed: int = 0) -> list[TrialRecord]:
    """A large study as ASHA leaves it: most pruned, a few failed, lr what matters."""
    random = np.random.default_rng(seed)
    records = []
    for number in range(count):
        lr = float(10 ** random.uniform(-5, -1))
        floor = 0.25 + 0.08 * (math.log10(lr) + 3) ** 2 + random.gamma(2, 0.02)
        n_epochs = int(random.choice([1, 3, 9], p=[0.6, 0.25, 0.15]))
        values = [round(floor + 0.5 * math.exp(-e / 2), 5) for e in range(1, n_epochs + 1)]
        changes: dict[str, Any] = {"status": "complete" if n_epochs == 9 else "pruned"}
        if random.random() < 0.03:
            changes = {"status": "failed", "error": f"the loss is nan in epoch {n_epochs}"}
        row, slot = divmod(number, slots)
        at = BEGUN + timedelta(seconds=row * 95 + int(random.integers(0, 5)))
        params = {"lr": lr, "dropout": float(random.uniform(0, 0.5))}
        place = {"started": at.isoformat(), "worker": f"node{slot // 8}:{1000 + slot}"}
        records.append(trial(number, values, params=params, **place, **changes))
    return records
