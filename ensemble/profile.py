"""What images and probabilities were like when a bundle was made, to tell drift and blur by."""

from collections.abc import Mapping
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator

from search.data.transforms import Preprocessing, prepare
from search.document import located
from search.params import Config, Share

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Finite = Annotated[float, Field(allow_inf_nan=False)]
STATISTICS = ("brightness", "contrast", "saturation", "sharpness", "red_blue")
BINS = 10
BLURRED = 0.01  # quantile of the held-back images' sharpness
SIDE = 112  # pixels; larger images are measured on about that many rows and columns
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
PRIOR = 0.5  # of a count, in every bin


class Deciles(Config):
    """How one number spread over the held-back images, in ten bins."""

    edges: list[Finite] = Field(
        min_length=BINS - 1, max_length=BINS - 1, description="between bins; each in the upper one"
    )
    shares: list[Share] = Field(
        min_length=BINS, max_length=BINS, description="of the images; ties make them unequal"
    )

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if sorted(self.edges) != self.edges:
            raise located(ValueError("edges must not fall"), "edges")
        if abs(sum(self.shares) - 1) > 1e-6:
            raise located(ValueError("shares must sum to 1"), "shares")
        return self


class Profile(Config):
    """The held-back images as the cheapest member sees them, and what the ensemble says of them."""

    member: str = Field(description="whose prepared pixels were measured")
    n: int = Field(ge=1, description="held-back images")
    statistics: dict[str, Deciles]
    probability: Deciles = Field(
        description="calibrated, of the positive class; of the most probable one without it"
    )
    blurred_below: Finite = Field(description="1st percentile of the sharpness")

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if set(self.statistics) != set(STATISTICS):
            raise located(ValueError(f"must be {', '.join(STATISTICS)}"), "statistics")
        return self


class Gauge:
    """Measures images on their way to the members, as the `change` of `score_images`."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        self._found: dict[int, dict[str, float]] = {}

    def __call__(self, image: Image.Image, index: int) -> Image.Image:
        """Measure an image; it passes as it came. Safe to call from several threads."""
        self._found[index] = measure(prepare(image, self._preprocessing))
        return image

    def columns(self) -> dict[str, Floats]:
        """Each statistic in the order of the images, (n_images,)."""
        rows = [self._found[index] for index in sorted(self._found)]
        return {name: np.array([row[name] for row in rows], np.float64) for name in STATISTICS}


def measure(pixels: Pixels) -> dict[str, float]:
    """Say what an image is like, quickly: requests wait for it.

    Args:
        pixels: RGB, (h, w, 3) with both sides at least 3.

    Returns:
        brightness and contrast, mean and standard deviation of the luminance, 0..255; saturation,
        the mean distance of the largest channel from the smallest, 0..255; red_blue, the ratio of
        their means, each plus 1; sharpness, the variance of the green channel's Laplacian.
        Those of a square of a member's size: blur that resizing hides is not seen.

    Source: of the sharpness, Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy:
    a comparative study", ICPR 2000.
    """
    step = max(1, min(pixels.shape[:2]) // SIDE)
    red, green, blue = (pixels[::step, ::step, c].ravel() for c in range(3))
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    luminance = LUMINANCE[0] * red + LUMINANCE[1] * green + LUMINANCE[2] * blue
    brightness, variance = _moments(luminance)
    return {
        "brightness": brightness,
        "contrast": float(np.sqrt(variance)),
        "saturation": float((highest - lowest).mean()),
        "sharpness": _moments(_laplacian(pixels[..., 1], step))[1],
        "red_blue": float((red.mean() + 1) / (blue.mean() + 1)),
    }


def watched(probs: NDArray[np.floating], positive: int | None) -> Floats:
    """The probability that is watched for drift, (n_images,).

    Args:
        probs: calibrated, (n_images, n_classes).
        positive: class index; None: the most probable class of each image.
    """
    found: Floats = np.asarray(probs, np.float64)
    return found.max(axis=1) if positive is None else found[:, positive]


def build_profile(statistics: Mapping[str, Floats], probabilities: Floats, member: str) -> Profile:
    """Note how each statistic and the watched probability spread.

    Args:
        statistics: as `measure` names them, (n_images,) each.
        probabilities: of the same images (see `watched`), (n_images,).
        member: whose prepared pixels were measured.
    """
    # "lower" gives a value that occurred, so at most 1% of the held-back images lie below it.
    blurred = np.quantile(statistics["sharpness"], BLURRED, method="lower")
    return Profile(
        member=member,
        n=len(probabilities),
        statistics={name: _deciles(statistics[name]) for name in STATISTICS},
        probability=_deciles(probabilities),
        blurred_below=float(blurred),
    )


def psi(expected_shares: NDArray[np.floating], found_counts: NDArray[np.integer]) -> float:
    """Population stability index: how far what was found has moved from what was expected.

    Half a count is added to every bin of both sides, as if n images had been expected: no bin is
    empty, the index is finite and 0 where the shares are equal. Without any drift it comes to about
    9 (1/n + 1/n_held_back) on average for ten bins, so hundreds of images on both sides are needed
    before the customary limits, 0.1 and 0.25, mean anything.

    Args:
        expected_shares: summing to 1, (n_bins,).
        found_counts: of n images, (n_bins,).

    Returns:
        0 where nothing moved, else above 0.

    Source: Siddiqi, "Credit risk scorecards", 2006; its size by chance, Yurdakul & Naranjo,
    "Statistical properties of the population stability index", J. Risk Model Validation 2020; the
    half count, Krichevsky & Trofimov, "The performance of universal encoding", IEEE Trans. Inf.
    Theory 1981.
    """
    n, rest = found_counts.sum(), PRIOR * len(found_counts)
    expected = (np.asarray(expected_shares, np.float64) * n + PRIOR) / (n + rest)
    found = (found_counts + PRIOR) / (n + rest)
    return float(((found - expected) * np.log(found / expected)).sum())


def _moments(values: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and variance; the latter as a product, which is faster than NumPy's own."""
    mean = values.mean()
    centred = values - mean
    return float(mean), float(centred @ centred) / centred.size


def _laplacian(channel: Pixels, step: int) -> NDArray[np.float32]:
    """Four neighbours minus four times the middle, on every `step`-th row, flat."""
    green = channel.astype(np.int16)
    middle = green[1:-1:step]
    found = green[:-2:step] + green[2::step]
    edges = found[:, 1:-1] + middle[:, :-2] + middle[:, 2:] - 4 * middle[:, 1:-1]
    return edges.astype(np.float32).ravel()


def _deciles(values: Floats) -> Deciles:
    edges = np.quantile(values, np.arange(1, BINS) / BINS)
    # As bisect_right does for a single value: what equals an edge lies above it.
    bins = np.searchsorted(edges, values, side="right")
    shares = np.bincount(bins, minlength=BINS) / len(values)
    return Deciles(edges=edges.tolist(), shares=shares.tolist())
