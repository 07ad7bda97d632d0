"""What a trial is asked to do on one fold, and what comes of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from search.config import PolicyConfig, WeightsConfig
from search.training.backbones import Classifier


@dataclass(frozen=True)
class Task:
    """What a trial is judged by, and for how long it may train.

    Attributes:
        epochs: that the schedule is laid out for.
        fixed_epochs: where given, as many are trained, and the last is the result: nothing is
            picked on the validation fold.
        plateau_nll: what a plateau schedule follows in place of the validation fold's own NLL.
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
    plateau_nll: tuple[float, ...] | None = None
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
    """The best epoch, or the last of fixed epochs.

    Attributes:
        epoch: its number, from 1.
        value: its objective.
        probs: (n_val, n_classes).
        history: metrics of every epoch.
    """

    epoch: int
    value: float
    probs: NDArray[np.float32]
    state: dict[str, Tensor]
    history: list[dict[str, float]]
