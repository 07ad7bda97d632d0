"""One trial on one fold: decoded images in, probabilities and best weights out. No Ray here."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from search.config import PolicyConfig, WeightsConfig
from search.errors import TrainingError
from search.objectives import minimised, value_of
from search.params import Params
from search.training.backbones import Classifier, build_classifier, freeze
from search.training.batches import Batches, Fold
from search.training.costs import measure_costs
from search.training.losses import balanced_weights, build_loss
from search.training.memory import Room, outputs
from search.training.metrics import evaluate_probs
from search.training.optimise import LearningRate, build_optimizer
from search.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Task:
    """What a trial is judged by, and for how long it may train.

    Attributes:
        epochs: that the schedule is laid out for.
        fixed_epochs: where given, as many are trained, and the last is the result: nothing is
            picked on the validation fold.
        measure_costs: tell `train_fold`'s begun what the classifier costs.
    """

    n_classes: int
    positive: int | None
    policy: PolicyConfig
    objective: str
    epochs: int
    patience: int | None = None
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    seed: int = 0
    fixed_epochs: int | None = None
    measure_costs: bool = False


@dataclass(frozen=True)
class Epoch:
    """What a trial reports after each epoch.

    Attributes:
        number: from 1.
        metrics: of the validation fold, with train_loss, lr, train_seconds and val_seconds; and
            micro_batch, the images a pass, once a GPU had no room for a whole batch.
        value: the objective; best_value is that of the result so far.
        improved: this epoch is the result so far: the best, or the last of fixed epochs.
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
Begun = Callable[[dict[str, float]], None]
FeaturesOf = Callable[[Classifier], NDArray[np.float32]]


@dataclass(frozen=True)
class FoldResult:
    """The best epoch, or the last of fixed epochs: its number, objective, probabilities (n_val,
    n_classes) and weights."""

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
    begun: Begun = lambda _: None,
    features: FeaturesOf | None = None,
    ranks: Ranks = ALONE,
) -> FoldResult:
    """Train one classifier and keep its best epoch by the objective.

    The same seed on the same machine gives the same result. A batch that a GPU has no room for
    is cut into micro-batches, whose gradients add up to the whole batch's; only the statistics of
    BatchNorm become those of the micro-batches.

    Args:
        begun: called before the first epoch with `measure_costs`, if the task asks for them.
        features: of all rows of the map, (n_rows, d), by the classifier's trunk. Then the head
            alone trains, on these; only for params that are `is_headonly`.
        ranks: this process among those that train the classifier together. All of them report the
            same metrics and end after the same epoch.

    Raises:
        TrainingError: the loss or the objective is not a number, naming the epoch.
        ConfigError: the params do not fit together.
    """
    seed_everything(task.seed)
    torch.manual_seed(ranks.seed(task.seed))
    classifier = _start(params, task, device, ranks)
    if task.measure_costs and ranks.rank == 0:
        begun(measure_costs(classifier, params))
    if features is not None:
        fold = replace(fold, features=features(classifier))
    trainer = _Trainer(fold, classifier, params, task, device=device, ranks=ranks)
    sign = 1 if minimised(task.objective) else -1
    best: FoldResult | None = None
    history: list[dict[str, float]] = []
    n_epochs = task.epochs if task.fixed_epochs is None else task.fixed_epochs
    for number in range(1, n_epochs + 1):
        metrics, probs = trainer.epoch(number)
        value = value_of(task.objective, metrics)
        if not np.isfinite(value):
            raise TrainingError(
                f"{task.objective} is {value} in epoch {number}; lower lr, or see that the "
                "validation fold holds every class"
            )
        history.append(metrics)
        better = best is None or sign * value < sign * best.value
        improved = better or task.fixed_epochs is not None
        if best is None or improved:
            best = FoldResult(number, value, probs, copy.deepcopy(trainer.state()), history)
        last = number == n_epochs or (
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
    return _probs(classifier, pixels, rows, device=device, batch_size=batch_size)


def _probs(
    network: nn.Module,
    inputs: NDArray[np.uint8] | NDArray[np.float32],
    rows: NDArray[np.int64],
    **options: Any,
) -> NDArray[np.float32]:
    logits = outputs(network.eval(), inputs, rows, **options)
    return np.concatenate([torch.softmax(x.double(), dim=1).float().cpu().numpy() for x in logits])


def _start(params: Params, task: Task, device: str, ranks: Ranks) -> Classifier:
    classifier = build_classifier(params, task.n_classes, task.weights, seed=task.seed)
    classifier = ranks.whole_norms(classifier.to(device))
    classifier.to(memory_format=torch.channels_last)
    freeze(classifier, params.unfreeze, keep_statistics=params.keep_statistics)
    return classifier


class _Trainer:
    """The moving parts of one trial, stepped an epoch at a time."""

    def __init__(
        self,
        fold: Fold,
        classifier: Classifier,
        params: Params,
        task: Task,
        *,
        device: str,
        ranks: Ranks,
    ) -> None:
        self.fold, self.classifier, self.params, self.task = fold, classifier, params, task
        self.device, self.ranks = device, ranks
        self.network: nn.Module = classifier if fold.features is None else classifier.head
        self.batches = Batches(fold, params, task.n_classes, seed=task.seed, ranks=ranks)
        weights = None
        if params.balance == "class_weights":
            labels = torch.from_numpy(fold.train_labels)
            weights = balanced_weights(labels, task.n_classes).to(device)
        self.loss = build_loss(params, weights, task.n_classes)
        self.optimizer = build_optimizer(self.classifier, params)
        self.rate = LearningRate(
            self.optimizer, params, epochs=task.epochs, steps=len(self.batches)
        )
        self.ema = ModelEmaV3(self.network, params.ema, use_warmup=True) if params.ema else None
        self.logits = ranks.wrap(self.network, self._logits)
        self.room = Room(params.image_size)

    def epoch(self, number: int) -> tuple[dict[str, float], NDArray[np.float32]]:
        """Train once over the fold, then validate."""
        start = time.perf_counter()
        rate = self.optimizer.param_groups[0]["lr"]
        train_loss = self._train(number)
        middle = time.perf_counter()
        inputs = self.fold.pixels if self.fold.features is None else self.fold.features
        self.ranks.align(self._judged())
        rows = self.ranks.spread(self.fold.val_rows)
        probs = _probs(self._judged(), inputs, rows, device=self.device)
        probs = self.ranks.gather(probs, len(self.fold.val_rows))
        metrics = evaluate_probs(
            probs, self.fold.val_labels, positive=self.task.positive, policy=self.task.policy
        )
        self.rate.after_epoch(metrics["nll"])
        times = {"train_seconds": middle - start, "val_seconds": time.perf_counter() - middle}
        cut = {"micro_batch": float(self.room.size)} if self.room.size else {}
        return metrics | {"train_loss": train_loss, "lr": rate} | times | cut, probs

    def state(self) -> dict[str, Tensor]:
        """Of the whole classifier, averaged where the params ask for it."""
        state, judged = self.classifier.state_dict(), self._judged().state_dict()
        prefix = "" if self.fold.features is None else "head."
        state |= {prefix + name: value for name, value in judged.items()}
        return {name: value.detach().cpu() for name, value in state.items()}

    def _judged(self) -> nn.Module:
        judged: nn.Module = self.ema.module if self.ema is not None else self.network
        return judged

    def _train(self, number: int) -> float:
        self.classifier.train()
        losses = []
        for images, targets in self.batches:
            loss = self._backward(images, targets)
            if not np.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} in epoch {number}; lower lr or set clip_norm"
                )
            self._step()
            losses.append(loss)
        return float(np.mean(losses))

    def _backward(self, images: Tensor, targets: Tensor) -> float:
        """Gradients and loss of a batch; where it does not fit, again in halves."""
        drawn = np.random.get_state()

        def attempt() -> float:
            np.random.set_state(drawn)  # mixup mixes the batch the same way each time
            self.optimizer.zero_grad(set_to_none=True)
            return self._accumulate(images, targets)

        if self.ranks.world == 1:
            return self.room.fit(attempt, len(images))
        try:  # once: where one worker starts a batch again, the others wait for it in vain
            return attempt()
        except torch.OutOfMemoryError as error:
            raise TrainingError("no room on a worker's GPU; lower batch_size") from error

    def _accumulate(self, images: Tensor, targets: Tensor) -> float:
        half = self.params.mixed_precision and self.device.startswith("cuda")
        # Where the GPU is short of room, the whole batch is mixed beside it.
        place = "cpu" if self.room.size else self.device
        x = images.to(place, non_blocking=True)
        if self.fold.features is None:
            x = self.classifier.normalise(x)
        x, shares = self.batches.mix(x, targets.to(place))
        shares = shares.to(self.device)
        weight = self.ranks.total(self.loss.weight(shares))
        n_parts = math.ceil(len(x) / (self.room.size or len(x)))
        total = 0.0
        for part, its_shares in zip(
            x.tensor_split(n_parts), shares.tensor_split(n_parts), strict=True
        ):
            with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=half):
                logits = self.logits(part.to(self.device))
            loss = self.loss.sum(logits.float(), its_shares) / weight
            ours = loss * self.ranks.world  # which backward averages over the ranks
            ours.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return self.ranks.total(torch.tensor(total, device=self.device, dtype=torch.float64)).item()

    def _step(self) -> None:
        if self.params.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.classifier.parameters(), self.params.clip_norm)
        self.optimizer.step()
        self.rate.after_step()
        if self.ema is not None:
            self.ema.update(self.network)

    def _logits(self, x: Tensor) -> Tensor:
        """Of normalised images (n, 3, size, size), or of features (n, d)."""
        head, classify = self.classifier.head, self.classifier.classify
        logits: Tensor = classify(x) if self.fold.features is None else head(x)
        return logits
