"""Training losses on logits against class shares."""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from torch import Tensor

from search.errors import ConfigError
from search.params import Params

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(params: Params, class_weights: Tensor | None, n_classes: int) -> Loss:
    """The loss a trial trains with.

    Args:
        params: loss, focal_gamma, label_smoothing.
        class_weights: (n_classes,) factors of each class, or None.

    Returns:
        a function of logits (n, n_classes) and class shares (n, n_classes) to a scalar.

    Raises:
        ConfigError: bce with more than two classes.
    """
    if params.loss == "bce" and n_classes != 2:
        raise ConfigError(f"loss bce needs two classes, there are {n_classes}; use cross_entropy")

    def loss(logits: Tensor, shares: Tensor) -> Tensor:
        smooth = params.label_smoothing
        target = shares * (1 - smooth) + smooth / n_classes
        if params.loss == "bce":
            per_image = _bce(logits, target)
        elif params.loss == "focal":
            per_image = _focal(logits, target, params.focal_gamma)
        else:
            per_image = -(target * F.log_softmax(logits, dim=1)).sum(dim=1)
        if class_weights is None:
            return per_image.mean()
        weights = shares @ class_weights
        return (per_image * weights).sum() / weights.sum()

    return loss


def balanced_weights(labels: Tensor, n_classes: int) -> Tensor:
    """Factors that give every class the same say: n / (n_classes × n of the class)."""
    counts = torch.bincount(labels, minlength=n_classes).clamp(min=1)
    return labels.numel() / (n_classes * counts.float())


def _bce(logits: Tensor, target: Tensor) -> Tensor:
    """One sigmoid unit: the difference of the two logits."""
    return F.binary_cross_entropy_with_logits(
        logits[:, 1] - logits[:, 0], target[:, 1], reduction="none"
    )


def _focal(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Source: Lin et al., "Focal loss for dense object detection", ICCV 2017."""
    log_probs = F.log_softmax(logits, dim=1)
    return -(target * (1 - log_probs.exp()) ** gamma * log_probs).sum(dim=1)
