"""Maps of several networks as one, and as a picture to lie over the image."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
LARGEST_POOL = 64  # cells a side
LARGEST_ROWS = 28  # cells a side of a map in an answer
LARGEST_PNG = 512  # pixels of the long side
OPACITY = 0.8  # where the map is 1: the image's own texture stays visible
# Viridis at 17 even steps; between them colours are interpolated, at most 5/255 off. Its lightness
# grows evenly, with and without colour vision, and its blues and greens are no skin's.
# Source: van der Walt & Smith, "A better default colormap for matplotlib", 2015 (CC0).
# fmt: off
VIRIDIS = (
    "440154", "48186a", "472d7b", "424086", "3b528b", "33638d", "2c728e", "26828e", "21918c",
    "1fa088", "28ae80", "3fbc73", "5ec962", "84d44b", "addc30", "d8e219", "fde725",
)
# fmt: on


def pool_maps(maps: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """The weighted mean of maps, at the size of the largest.

    Args:
        maps: at least one; each (h, w) in 0..1, of sizes that may differ.
        weights: above 0, by the maps' names; they need not sum to 1.

    Returns:
        (H, W), at most 64 cells a side, divided by its maximum; all zeros where all maps are.
    """
    height = min(max(heat.shape[0] for heat in maps.values()), LARGEST_POOL)
    width = min(max(heat.shape[1] for heat in maps.values()), LARGEST_POOL)
    total = np.zeros((height, width))
    for name, heat in maps.items():
        total += weights[name] * _resized(heat, (width, height))
    return _of_its_maximum(total)


def as_rows(heat: Floats) -> list[list[float]]:
    """A map for JSON: at most 28 cells a side, to 3 decimals, rows from the top."""
    height, width = heat.shape
    size = (min(width, LARGEST_ROWS), min(height, LARGEST_ROWS))
    smaller = _of_its_maximum(_resized(heat, size)).astype(np.float64)
    rows: list[list[float]] = smaller.round(3).tolist()
    return rows


def heat_png(heat: Floats, size: tuple[int, int]) -> bytes:
    """A map as a picture to lie over its image: the more it marks, the less transparent.

    Args:
        heat: (h, w) in 0..1.
        size: (width, height) of the image, pixels.

    Returns:
        PNG, RGBA, of the image's size and shape, or smaller: at most 512 pixels a side. Clear
        where the map is 0.
    """
    scale = min(1, LARGEST_PNG / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    levels = np.rint(255 * _resized(heat, (width, height))).astype(np.uint8)
    file = BytesIO()
    Image.fromarray(_colours()[levels]).save(file, "PNG")
    return file.getvalue()


def _colours() -> NDArray[np.uint8]:
    """RGBA of each level, (256, 4)."""
    stops = np.array([list(bytes.fromhex(colour)) for colour in VIRIDIS])
    at, levels = np.linspace(0, 1, len(stops)), np.linspace(0, 1, 256)
    channels = [np.interp(levels, at, stops[:, channel]) for channel in range(3)]
    channels.append(255 * OPACITY * levels)
    return np.asarray(np.rint(np.stack(channels, axis=1)), np.uint8)


def _resized(heat: Floats, size: tuple[int, int]) -> Floats:
    """Bilinear, to (width, height); what is made smaller is averaged."""
    if heat.shape[::-1] == size:
        return heat
    picture = Image.fromarray(np.ascontiguousarray(heat, np.float32))
    resized: Floats = np.asarray(picture.resize(size, Image.Resampling.BILINEAR), np.float32)
    return resized.clip(0, 1)


def _of_its_maximum(heat: NDArray[np.floating]) -> Floats:
    peak = heat.max()
    scaled: Floats = (heat / peak if peak > 0 else heat).astype(np.float32)
    return scaled
