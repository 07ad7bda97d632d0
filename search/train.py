"""One trial on one fold: decoded images in, probabilities and best weights out. No Ray here."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from search.backbones import Classifier, build_classifier, freeze
from search.batches import Batches, Fold
from search.config import PolicyConfig, WeightsConfig
from search.errors import TrainingError
from search.losses import balanced_weights, build_loss
from search.metrics import evaluate_probs
from search.objectives import minimised, value_of
from search.optimise import LearningRate, build_optimizer
from search.params import Params


@dataclass(frozen=True)
class Task:
    """What a trial is judged by, and for how long it may train."""

    n_classes: int
    positive: int | None
    policy: PolicyConfig
    objective: str
    epochs: int
    patience: int | None = None
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """What a trial reports after each epoch.

    Attributes:
        number: from 1.
        metrics: of the validation fold, with train_loss, lr, train_seconds and val_seconds.
        value: the objective; best_value is the best so far.
        improved: this epoch is the best so far.
        last: the trial ends here by itself.
        probs: (n_val, n_classes) of this epoch.
        state: weights of this epoch; only valid during the report.
    """

    number: int
    metrics: dict[str, float]
    value: float
    best_value: float
    improved: bool
    last: bool
    probs: NDArray[np.float32]
    state: dict[str, Tensor]


Report = Callable[[Epoch], None]


@dataclass(frozen=True)
class FoldResult:
    """The best epoch: its number, objective, probabilities (n_val, n_classes) and weights."""

    epoch: int
    value: float
    probs: NDArray[np.float32]
    state: dict[str, Tensor]
    history: list[dict[str, float]]


def train_fold(
    fold: Fold,
    params: Params,
    task: Task,
    *,
    device: str = "cpu",
    report: Report = lambda _: None,
) -> FoldResult:
    """Train one classifier and keep its best epoch by the objective.

    The same seed on the same machine gives the same result.

    Raises:
        TrainingError: the loss or the objective is not a number, naming the epoch.
        ConfigError: the params do not fit together.
    """
    seed_everything(task.seed)
    trainer = _Trainer(fold, params, task, device)
    sign = 1 if minimised(task.objective) else -1
    best: FoldResult | None = None
    history: list[dict[str, float]] = []
    for number in range(1, task.epochs + 1):
        metrics, probs = trainer.epoch(number)
        value = value_of(task.objective, metrics)
        if not np.isfinite(value):
            raise TrainingError(
                f"{task.objective} is {value} in epoch {number}; lower lr, or see that the "
                "validation fold holds every class"
            )
        history.append(metrics)
        improved = best is None or sign * value < sign * best.value
        if best is None or improved:
            best = FoldResult(number, value, probs, copy.deepcopy(trainer.state()), history)
        last = number == task.epochs or (
            task.patience is not None and number - best.epoch >= task.patience
        )
        report(Epoch(number, metrics, value, best.value, improved, last, probs, trainer.state()))
        if last:
            break
    if best is None:
        raise TrainingError("no epoch was trained; set fidelity.max_epochs to at least 1")
    return best


def seed_everything(seed: int) -> None:
    """Seed torch and numpy's global generators, which timm's mixup draws from."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def predict_pixels(
    classifier: Classifier,
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    device: str = "cpu",
    batch_size: int = 64,
) -> NDArray[np.float32]:
    """Softmax probabilities of rows of a map, (n_rows, n_classes)."""
    classifier.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = np.ascontiguousarray(pixels[rows[start : start + batch_size]])
            logits = classifier(torch.from_numpy(batch).to(device))
            parts.append(torch.softmax(logits.double(), dim=1).float().cpu().numpy())
    return np.concatenate(parts)


class _Trainer:
    """The moving parts of one trial, stepped an epoch at a time."""

    def __init__(self, fold: Fold, params: Params, task: Task, device: str) -> None:
        self.fold, self.params, self.task, self.device = fold, params, task, device
        self.batches = Batches(fold, params, task.n_classes, seed=task.seed)
        self.classifier = build_classifier(params, task.n_classes, task.weights, seed=task.seed).to(
            device
        )
        self.classifier.to(memory_format=torch.channels_last)
        freeze(self.classifier, params.unfreeze, keep_statistics=params.keep_statistics)
        weights = None
        if params.balance == "class_weights":
            labels = torch.from_numpy(fold.train_labels)
            weights = balanced_weights(labels, task.n_classes).to(device)
        self.loss = build_loss(params, weights, task.n_classes)
        self.optimizer = build_optimizer(self.classifier, params)
        self.rate = LearningRate(
            self.optimizer, params, epochs=task.epochs, steps=len(self.batches)
        )
        self.ema = ModelEmaV3(self.classifier, params.ema, use_warmup=True) if params.ema else None

    def epoch(self, number: int) -> tuple[dict[str, float], NDArray[np.float32]]:
        """Train once over the fold, then validate."""
        start = time.perf_counter()
        rate = self.optimizer.param_groups[0]["lr"]
        train_loss = self._train(number)
        middle = time.perf_counter()
        probs = predict_pixels(
            self._judged(), self.fold.pixels, self.fold.val_rows, device=self.device
        )
        metrics = evaluate_probs(
            probs, self.fold.val_labels, positive=self.task.positive, policy=self.task.policy
        )
        self.rate.after_epoch(metrics["nll"])
        times = {"train_seconds": middle - start, "val_seconds": time.perf_counter() - middle}
        return metrics | {"train_loss": train_loss, "lr": rate} | times, probs

    def state(self) -> dict[str, Tensor]:
        return {name: value.detach().cpu() for name, value in self._judged().state_dict().items()}

    def _judged(self) -> Classifier:
        judged: Classifier = self.ema.module if self.ema is not None else self.classifier
        return judged

    def _train(self, number: int) -> float:
        self.classifier.train()
        half = self.params.mixed_precision and self.device.startswith("cuda")
        losses = []
        for images, targets in self.batches:
            x = self.classifier.normalise(images.to(self.device, non_blocking=True))
            x, shares = self.batches.mix(x, targets.to(self.device))
            with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=half):
                logits = self.classifier.classify(x)
            loss = self.loss(logits.float(), shares)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss.item()} in epoch {number}; lower lr or set clip_norm"
                )
            self._step(loss)
            losses.append(loss.item())
        return float(np.mean(losses))

    def _step(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.params.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.classifier.parameters(), self.params.clip_norm)
        self.optimizer.step()
        self.rate.after_step()
        if self.ema is not None:
            self.ema.update(self.classifier)
