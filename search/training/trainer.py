"""The moving parts of one trial: batches, loss, optimizer, averaged weights."""

import math
import time

import numpy as np
import torch
from numpy.typing import NDArray
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from search.errors import TrainingError
from search.params import Params
from search.training.backbones import Classifier
from search.training.batches import Batches, Fold
from search.training.losses import balanced_weights, build_loss
from search.training.memory import Room
from search.training.metrics import evaluate_probs
from search.training.optimise import LearningRate, build_optimizer
from search.training.predict import predict_probs
from search.training.ranks import Ranks
from search.training.task import Task


class Trainer:
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
        probs = predict_probs(self._judged(), inputs, rows, device=self.device)
        probs = self.ranks.gather(probs, len(self.fold.val_rows))
        metrics = evaluate_probs(
            probs, self.fold.val_labels, positive=self.task.positive, policy=self.task.policy
        )
        told = self.task.plateau_nll
        self.rate.after_epoch(metrics["nll"] if told is None else told[number - 1])
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
