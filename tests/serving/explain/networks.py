"""Networks small enough to be trained within a test."""

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from search.config import WeightsConfig
from search.data.transforms import Preprocessing
from search.params import Params
from search.training.backbones import OWN, Classifier, build_classifier

SIZE, QUADRANT = 64, 32  # pixels
PREPROCESSING = Preprocessing(size=SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def a_classifier(backbone: str, *, size: int = SIZE, seed: int = 0) -> Classifier:
    """Untrained, of three classes."""
    params = Params(backbone=backbone, image_size=size, weights="none", hidden=0, dropout=0)
    allow = [] if backbone in OWN else [backbone]
    return build_classifier(params, 3, WeightsConfig(allow=allow), seed=seed).eval()


def small_trunk(kind: str) -> tuple[nn.Module, int]:
    """A trunk with a map of 8 x 8 cells for 64 pixels, and its width."""
    if kind == "resnet":  # its head sees the mean over all places
        stages: dict[str, Any] = {"channels": (16, 16, 16, 32), "output_stride": 8}
        return ResNet(cast(Any, BasicBlock), (1, 1, 1, 1), num_classes=0, **stages), 32
    if kind == "vit":
        shape: dict[str, Any] = {
            "img_size": SIZE,
            "patch_size": 8,
            "embed_dim": 24,
            "depth": 2,
            "num_heads": 2,
        }
        return VisionTransformer(num_classes=0, **shape), 24
    return a_classifier("cnn").trunk, 128 * 16  # its head sees a grid of 4 x 4 places


def small_classifier(kind: str, *, seed: int = 0) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk, width = small_trunk(kind)
        return Classifier(trunk, nn.Linear(width, 2), PREPROCESSING).eval()


def output_of(classifier: Classifier) -> nn.Linear:
    """The layer that gives the logits."""
    return cast(nn.Linear, cast(nn.Sequential, classifier.head)[-1])


def discs(count: int, *, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise with a dark disc in one quadrant, in every second image; and the quadrant, or -1.

    Returns:
        (count, 64, 64, 3), and (count,): row by row, 0 is upper left; -1 without a disc.
    """
    rng = np.random.default_rng(seed)
    images = rng.normal(150, 20, (count, SIZE, SIZE, 3))
    where = np.where(np.arange(count) % 2, rng.integers(0, 4, count), -1)
    y, x = np.mgrid[:SIZE, :SIZE]
    for image, quadrant in zip(images, where, strict=True):
        if quadrant >= 0:
            cy, cx = np.array(divmod(quadrant, 2)) * QUADRANT + rng.integers(12, 20, 2)
            image[(y - cy) ** 2 + (x - cx) ** 2 < 81] -= 110
    return images.clip(0, 255).astype(np.uint8), where


def train_on_discs(classifier: Classifier, *, steps: int, rate: float) -> Classifier:
    """Teach class 1: there is a disc."""
    optimiser = torch.optim.AdamW(classifier.parameters(), rate)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier.train()
        for step in range(steps):
            images, where = discs(16, seed=step)
            logits = classifier(torch.from_numpy(images))
            loss = nn.functional.cross_entropy(logits, torch.from_numpy(where >= 0).long())
            optimiser.zero_grad()
            cast(Any, loss).backward()
            optimiser.step()
    return classifier.eval()
