"""Test-time augmentation: the same image seen mirrored and turned, its probabilities averaged.

A lesion has no upper side: all eight views of the square show the same diagnosis.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ensemble.config import Views
from ensemble.paired import clustered_error
from search.params import Config
from search.training.metrics import NLL_FLOOR

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Simplest first: among views as good as the best, within one standard error, the first is chosen.
N_VIEWS: dict[Views, int] = {"none": 1, "flips": 4, "dihedral": 8}


class ViewsWorth(Config):
    """What a kind of views is worth on out-of-fold probabilities, and what it costs."""

    views: Views
    nll: float = Field(description="mean log loss of all images")
    difference: float = Field(description="from the best kind's, by image; 0 for the best")
    standard_error: float = Field(description="of the difference, clustered by group")
    cost: int = Field(description="times the time of one view")
    chosen: bool = False


def view_pixels(pixels: NDArray[np.uint8], views: Views) -> list[NDArray[np.uint8]]:
    """See images from all sides that `views` names.

    Args:
        pixels: (n, size, size, 3).

    Returns:
        `N_VIEWS[views]` contiguous arrays of that shape; the first is the images as they are.
        Flips are left-right, up-down and both; the dihedral views add the same four transposed.
    """
    if pixels.ndim != 4 or pixels.shape[1] != pixels.shape[2]:
        raise ValueError(f"pixels must be (n, size, size, 3), the shape is {pixels.shape}")
    if views == "none":
        return [np.ascontiguousarray(pixels)]
    turned = [pixels, pixels.swapaxes(1, 2)] if views == "dihedral" else [pixels]
    return [
        np.ascontiguousarray(images[:, ::down, ::across])
        for images, down, across in product(turned, (1, -1), (1, -1))
    ]


def choose_views(
    label_probs_by_views: Mapping[Views, NDArray[np.floating]], labels: Ints, groups: NDArray[Any]
) -> tuple[Views, list[ViewsWorth]]:
    """Choose the simplest views within one standard error of the best, by log loss.

    Args:
        label_probs_by_views: by kind of views, out-of-fold probabilities, (n_images, n_classes).
        labels: class indices, (n_images,).
        groups: of linked images, (n_images,); the standard error is clustered by them.

    Returns:
        The choice, and the worth of each kind that is given, simplest first.

    Raises:
        ValueError: nothing is given, or the image counts differ.
    """
    given = [views for views in N_VIEWS if views in label_probs_by_views]
    if not given:
        raise ValueError("no views to choose from")
    losses = {views: _losses(label_probs_by_views[views], labels) for views in given}
    best = min(given, key=lambda views: float(losses[views].mean()))  # of equals the simplest
    paired = {views: losses[views] - losses[best] for views in given}
    worth = {v: (float(d.mean()), clustered_error(d, groups)) for v, d in paired.items()}
    chosen = next(views for views in given if worth[views][0] <= worth[views][1])
    return chosen, [
        ViewsWorth(
            views=views,
            nll=float(losses[views].mean()),
            difference=worth[views][0],
            standard_error=worth[views][1],
            cost=N_VIEWS[views],
            chosen=views == chosen,
        )
        for views in given
    ]


def _losses(probs: NDArray[np.floating], labels: Ints) -> Floats:
    """Log loss of each image, (n_images,); the mean of it is `search.training.metrics.nll`."""
    if len(probs) != len(labels) or not len(labels):
        raise ValueError(f"{len(probs)} rows of probs for {len(labels)} labels; need as many, >= 1")
    own = np.asarray(probs, np.float64)[np.arange(len(labels)), labels]
    if not np.isfinite(own).all():
        raise ValueError("probs must be finite")
    losses: Floats = -np.log(np.clip(own, NLL_FLOOR, 1))
    return losses
