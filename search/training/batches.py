"""What a trial trains on: the images of a fold in augmented batches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from timm.data.mixup import Mixup
from torch import Tensor
from torch.nn.functional import one_hot

from search.params import Params
from search.training.augment import build_augmentation
from search.training.losses import balanced_weights
from search.training.ranks import ALONE, Ranks

ELSEWHERE = -1  # the row of an image that another worker's map holds


@dataclass(frozen=True)
class Fold:
    """The images of one fold, by rows of a map that holds them all.

    Attributes:
        pixels: (n_rows, size, size, 3) uint8, may be memory-mapped.
        train_rows, val_rows: rows of the map; of a shard's, ELSEWHERE for other workers' images.
        train_labels, val_labels: class indices of all images.
        sharded: whether the map holds this worker's part alone: the images of Ranks.divide to
            train on, those of Ranks.spread to predict.
        features: (n_rows, d) float32 of a frozen trunk, which stand in for the pixels.
    """

    pixels: NDArray[np.uint8]
    train_rows: NDArray[np.int64]
    train_labels: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    val_labels: NDArray[np.int64]
    features: NDArray[np.float32] | None = None
    sharded: bool = False


class Batches:
    """Training batches, drawn and augmented anew in each pass; deterministic in the seed.

    A pass yields uint8 images (n, size, size, 3), or the features that stand in for them (n, d),
    and class shares (n, n_classes). Where workers share a batch, it is this one's part of it; an
    image that only stands in for one has no share of any class. Of a sharded fold each worker
    draws its part of every batch from its own images, so that all take equally many steps and
    every image is seen once a pass, but the batches depend on the number of workers.
    """

    def __init__(
        self, fold: Fold, params: Params, n_classes: int, *, seed: int, ranks: Ranks = ALONE
    ) -> None:
        self._fold, self._size, self._n_classes = fold, params.batch_size, n_classes
        self._ranks = ranks
        self._rng = np.random.default_rng(ranks.seed(seed) if fold.sharded else seed)
        self._augment = build_augmentation(params.augment, params.image_size, ranks.seed(seed))
        self._mixup = _mixup(params, n_classes)
        self._odds: NDArray[np.float64] | None = None
        if params.balance == "sampler":
            labels = torch.from_numpy(fold.train_labels)
            weights = balanced_weights(labels, n_classes)[labels].double()
            self._odds = (weights / weights.sum()).numpy()

    def __len__(self) -> int:
        """Batches of one pass."""
        return len(self._cut(np.arange(len(self._fold.train_rows))))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for mine, n_real in self._parts():
            labels = torch.from_numpy(self._fold.train_labels[mine])
            shares = one_hot(labels, self._n_classes).float()
            shares[n_real:] = 0
            yield self._inputs(self._fold.train_rows[mine]), shares

    def mix(self, x: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Mixup or cutmix of normalised images (n, 3, size, size), where the params ask for it.

        timm pairs an image with its mirror in the batch: an odd one out stays as it is, and
        so does what images stand in for others.
        """
        if self._mixup is None or len(x) < 2 or not shares.any(dim=1).all():
            return x, shares
        even = len(x) - len(x) % 2
        mixed, targets = self._mixup(x[:even], shares[:even].argmax(dim=1))
        return torch.cat([mixed, x[even:]]), torch.cat([targets, shares[even:]])

    def _parts(self) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Of each batch this worker's images, and how many of them count; see Ranks.share."""
        n = len(self._fold.train_rows)
        if not self._fold.sharded:
            yield from map(self._ranks.share, self._cut(self._draw(np.arange(n))))
            return
        order = self._draw(np.flatnonzero(self._fold.train_rows != ELSEWHERE))
        for places in self._cut(np.arange(n)):
            yield self._ranks.share_of_own(places, order)

    def _draw(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """As many of these images, each once or by its odds."""
        if self._odds is None:
            return self._rng.choice(images, len(images), replace=False)
        odds = self._odds[images]
        return self._rng.choice(images, len(images), p=odds / odds.sum())

    def _inputs(self, rows: NDArray[np.int64]) -> Tensor:
        if self._fold.features is not None:
            return torch.from_numpy(self._fold.features[rows])
        return torch.from_numpy(np.stack([self._augment(self._fold.pixels[row]) for row in rows]))

    def _cut(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        batches = [order[i : i + self._size] for i in range(0, len(order), self._size)]
        # One image alone has no batch statistics.
        return batches[:-1] if len(batches) > 1 and len(batches[-1]) == 1 else batches


def _mixup(params: Params, n_classes: int) -> Mixup | None:
    if not params.mixup and not params.cutmix:
        return None
    return Mixup(  # type: ignore[no-untyped-call]
        mixup_alpha=params.mixup,
        cutmix_alpha=params.cutmix,
        label_smoothing=0.0,
        num_classes=n_classes,
    )
