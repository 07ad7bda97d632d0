"""Probabilities of images by a classifier, in evaluation mode."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from search.training.backbones import Classifier
from search.training.memory import outputs


def predict_pixels(
    classifier: Classifier,
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    device: str = "cpu",
    batch_size: int = 64,
) -> NDArray[np.float32]:
    """Softmax probabilities of rows of a map, (n_rows, n_classes)."""
    return predict_probs(classifier, pixels, rows, device=device, batch_size=batch_size)


def predict_probs(
    network: nn.Module,
    inputs: NDArray[np.uint8] | NDArray[np.float32],
    rows: NDArray[np.int64],
    **options: Any,
) -> NDArray[np.float32]:
    """Softmax probabilities of rows of a network's inputs, images or features; options of outputs.

    The network stays in evaluation mode.
    """
    logits = outputs(network.eval(), inputs, rows, **options)
    return np.concatenate([torch.softmax(x.double(), dim=1).float().cpu().numpy() for x in logits])
