"""Optimizers and learning-rate schedules."""

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from search.params import Params


def build_optimizer(classifier: nn.Module, params: Params) -> torch.optim.Optimizer:
    """AdamW, Adam or SGD over what trains; biases and norms do not decay."""
    trainable = [p for p in classifier.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": params.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if params.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=params.lr, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if params.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=params.lr)


class LearningRate:
    """The schedule of one trial: warm-up and decay each step, plateaus each epoch."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, params: Params, *, epochs: int, steps: int
    ) -> None:
        warmup = params.warmup_epochs * steps
        total = epochs * steps

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            if params.schedule != "cosine":
                return 1.0
            done = (step - warmup) / max(1.0, total - warmup)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

        self._steps = LambdaLR(optimizer, factor)
        self._plateau: ReduceLROnPlateau | None = None
        if params.schedule == "plateau":
            self._plateau = ReduceLROnPlateau(optimizer, factor=0.3, patience=1)
        self._warm = warmup

    def after_step(self) -> None:
        """Move on by one optimizer step."""
        if self._plateau is None or self._steps.last_epoch < self._warm:
            self._steps.step()

    def after_epoch(self, val_nll: float) -> None:
        """Tell the validation NLL; a plateau lowers the rate."""
        if self._plateau is not None:
            self._plateau.step(val_nll)
