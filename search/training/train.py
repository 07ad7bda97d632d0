"""One trial on one fold: decoded images in, probabilities and best weights out. No Ray here."""

import copy
from dataclasses import replace

import numpy as np
import torch

from search.errors import TrainingError
from search.objectives import minimised, value_of
from search.params import Params
from search.training.backbones import Classifier, build_classifier, freeze
from search.training.batches import Fold
from search.training.costs import measure_costs
from search.training.ranks import ALONE, Ranks
from search.training.task import Begun, Epoch, FeaturesOf, FoldResult, Report, Task
from search.training.trainer import Trainer


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
    trainer = Trainer(fold, classifier, params, task, device=device, ranks=ranks)
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


def _start(params: Params, task: Task, device: str, ranks: Ranks) -> Classifier:
    classifier = build_classifier(params, task.n_classes, task.weights, seed=task.seed)
    classifier = ranks.whole_norms(classifier.to(device))
    classifier.to(memory_format=torch.channels_last)
    freeze(classifier, params.unfreeze, keep_statistics=params.keep_statistics)
    return classifier
