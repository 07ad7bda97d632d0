"""Training losses on logits against class shares."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from search.errors import ConfigError
from search.params import Params

PerImage = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A weighted mean over images, in its two parts.

    The mean of a batch that is cut into pieces, over workers or one after the other, is the sum of
    the pieces' sums over the sum of their weights; never the mean of their means. An image without
    a share of any class counts nothing.

    Attributes:
        per_image: of logits (n, n_classes) and smoothed class shares (n, n_classes) to (n,).
        smoothing: share of each image's label that is spread over all classes.
        class_weights: (n_classes,) factors of each class, or None.
    """

    per_image: PerImage
    smoothing: float = 0.0
    class_weights: Tensor | None = None

    def __call__(self, logits: Tensor, shares: Tensor) -> Tensor:
        """The mean loss, a scalar, of logits and class shares, (n, n_classes) each."""
        return self.sum(logits, shares) / self.weight(shares)

    def sum(self, logits: Tensor, shares: Tensor) -> Tensor:
        """The mean's numerator, a scalar; 0 of no image."""
        target = shares * (1 - self.smoothing) + self.smoothing / shares.shape[1]
        return (self.per_image(logits, target) * self._of_images(shares)).sum()

    def weight(self, shares: Tensor) -> Tensor:
        """The mean's denominator, a scalar that needs no logits; 0 of no image."""
        return self._of_images(shares).sum()

    def _of_images(self, shares: Tensor) -> Tensor:
        return shares.sum(dim=1) if self.class_weights is None else shares @ self.class_weights


def build_loss(params: Params, class_weights: Tensor | None, n_classes: int) -> Loss:
    """The loss a trial trains with.

    Args:
        params: loss, focal_gamma, label_smoothing.
        class_weights: (n_classes,) factors of each class, or None.

    Raises:
        ConfigError: bce with more than two classes.
    """
    if params.loss == "bce" and n_classes != 2:
        raise ConfigError(f"loss bce needs two classes, there are {n_classes}; use cross_entropy")
    per_image: dict[str, PerImage] = {
        "bce": _bce,
        "focal": partial(_focal, gamma=params.focal_gamma),
        "cross_entropy": _cross_entropy,
    }
    return Loss(per_image[params.loss], params.label_smoothing, class_weights)


def balanced_weights(labels: Tensor, n_classes: int) -> Tensor:
    """Factors that give every class the same say: n / (n_classes × n of the class)."""
    counts = torch.bincount(labels, minlength=n_classes).clamp(min=1)
    return labels.numel() / (n_classes * counts.float())


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * F.log_softmax(logits, dim=1)).sum(dim=1)


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    """One sigmoid unit: the difference of the two logits."""
    return F.binary_cross_entropy_with_logits(
        logits[:, 1] - logits[:, 0], target[:, 1], reduction="none"
    )


def _focal(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Source: Lin et al., "Focal loss for dense object detection", ICCV 2017."""
    log_probs = F.log_softmax(logits, dim=1)
    return -(target * (1 - log_probs.exp()) ** gamma * log_probs).sum(dim=1)
