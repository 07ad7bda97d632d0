"""How far an image lies from the training data: the k-th nearest neighbour's distance.

Features are those that a network's head sees, scaled to length 1, so that distances are in [0, 2].
Source: Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ensemble.manifest import NovelKind
from search.atomic import write_bytes
from search.errors import BundleError
from search.training.metrics import auroc

Floats = NDArray[np.floating]
TENSOR = "reference"
BATCH = 1024  # images whose distances to all of the reference are in memory at once
LONGEST = 1.01  # of a row, rounded to 16 bits


@dataclass(frozen=True)
class Reference:
    """Training images as features.

    Attributes:
        rows: (n, d) float32, of length 1 up to their rounding to 16 bits.
        k: of the neighbour whose distance counts, 1 to n.

    Raises:
        ValueError: rows that are no finite (n >= 1, d >= 1) array of that length, or another k.
    """

    rows: NDArray[np.float32]
    k: int

    def __post_init__(self) -> None:
        shape = self.rows.shape
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"rows must be (n >= 1, d >= 1), the shape is {shape}")
        if not (np.isfinite(self.rows).all() and _lengths(self.rows).max() <= LONGEST):
            raise ValueError("rows must be finite and of length 1")
        if not 1 <= self.k <= len(self.rows):
            raise ValueError(f"k must be 1 to {len(self.rows)}, it is {self.k}")

    def distances(self, features: Floats) -> NDArray[np.float32]:
        """Distance of each image to its k-th nearest row.

        Args:
            features: (m, d), of any length.

        Returns:
            (m,), in [0, 2]; infinite where a feature is not finite, as that is like nothing seen.

        Raises:
            ValueError: for another d.
        """
        if features.ndim != 2 or features.shape[1] != self.rows.shape[1]:
            wanted = f"(m, {self.rows.shape[1]})"
            raise ValueError(f"features must be {wanted}, the shape is {features.shape}")
        finite: NDArray[np.bool_] = np.asarray(np.isfinite(features).all(axis=1))
        unit = _unit(np.where(finite[:, None], features, 0))
        found = np.empty(len(unit), np.float32)
        for start in range(0, len(unit), BATCH):
            found[start : start + BATCH] = self._nearest(unit[start : start + BATCH])
        found[~finite] = np.inf
        return found

    def _nearest(self, unit: NDArray[np.float32]) -> NDArray[np.float32]:
        # |a - b|² = |a|² + |b|² - 2ab: a matrix product, many times quicker than differences.
        squared = np.square(_lengths(self.rows)) - 2 * (unit @ self.rows.T)
        nearest = np.partition(squared, self.k - 1, axis=1)[:, self.k - 1]
        distances: NDArray[np.float32] = np.sqrt(np.maximum(nearest + np.square(_lengths(unit)), 0))
        return distances


def build_reference(
    features: Floats, *, limit: int = 2000, k: int = 10, seed: int = 0
) -> Reference:
    """Keep some training images' features as the reference.

    They are rounded to 16 bits, as they lie on disk: a threshold that is set now holds later.

    Args:
        features: (n, d), of any length; rows that are not finite are left out.
        limit: rows that are kept, drawn at random.
        k: of the neighbour; at most as many as rows are kept.

    Raises:
        ValueError: no finite row is left.
    """
    rows = np.asarray(features)[np.isfinite(features).all(axis=1)]
    if len(rows) > limit:
        rows = rows[np.sort(np.random.default_rng(seed).choice(len(rows), limit, replace=False))]
    if not len(rows):
        raise ValueError("no image has finite features")
    rounded = _unit(rows).astype(np.float16).astype(np.float32)
    return Reference(rounded, min(k, len(rounded)))


def threshold_for(held_back_distances: Floats, flagged: float) -> float:
    """The distance above which an image is flagged.

    It is the distance of rank ceil((n + 1)(1 - flagged)) upwards, of which a new image like the
    held-back ones is above with a chance of at most `flagged`. Fewer than 1 / flagged - 1 images
    cannot say so much: then it is the largest, and the chance is 1 / (n + 1).

    Args:
        held_back_distances: (n,), finite, of images that are in no reference: those in it are
            their own neighbours, and a threshold from them flags far too many others.
        flagged: share of held-back images that may be flagged, in (0, 1).

    Raises:
        ValueError: no distance, one that is not finite, or another share.

    Source: Vovk et al., "Algorithmic learning in a random world", 2005, section 2 (conformal rank).
    """
    n = len(held_back_distances)
    if not n or not np.isfinite(held_back_distances).all():
        raise ValueError(f"held-back distances must be finite, at least one; there are {n}")
    if not 0 < flagged < 1:
        raise ValueError(f"flagged must be between 0 and 1, it is {flagged}")
    rank = math.ceil((n + 1) * (1 - flagged) - 1e-9)  # 125 * 0.824 is 103.00000000000001
    return float(np.sort(held_back_distances)[min(rank, n) - 1])


def measure(
    distances: Mapping[str, Floats], held_back_distances: Floats, threshold: float
) -> list[NovelKind]:
    """How well images of each kind are told from held-back ones.

    Args:
        distances: by kind, (n_images,).
        held_back_distances: (n,), of images that are in no reference.
        threshold: above it an image is flagged.
    """
    return [
        NovelKind(
            kind=kind,
            n=len(found),
            auroc=_auroc(found, held_back_distances),
            flagged=float((found > threshold).mean()),
        )
        for kind, found in distances.items()
    ]


def write_reference(path: Path, reference: Reference) -> None:
    """Write the rows as safetensors of 16 bits."""
    write_bytes(path, save({TENSOR: reference.rows.astype(np.float16)}))


def read_reference(path: Path, *, k: int) -> Reference:
    """Read what `write_reference` wrote.

    Raises:
        BundleError: naming the file that is missing, damaged, or holds something else.
    """
    try:
        rows = load(path.read_bytes())[TENSOR]
        return Reference(rows.astype(np.float32), k)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"{path}: no reference of this bundle; build the bundle again") from error


def _auroc(others: Floats, held_back: Floats) -> float:
    """Chance that an image of the kind lies farther away than a held-back one."""
    everything = np.concatenate([others, held_back])
    labels = np.repeat([1, 0], [len(others), len(held_back)])
    _, ranks = np.unique(everything, return_inverse=True)
    score = ranks / max(ranks.max(), 1)  # the order is all that counts, and this is in [0, 1]
    return auroc(np.stack([1 - score, score], axis=1), labels, positive=1)


def _unit(rows: Floats) -> NDArray[np.float32]:
    """Rows scaled to length 1; one without any length stays so."""
    lengths = np.linalg.norm(np.asarray(rows, np.float64), axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def _lengths(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths: NDArray[np.float32] = np.linalg.norm(rows, axis=1)
    return lengths
