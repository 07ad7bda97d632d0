"""Random changes of training images; the only file that knows albumentations."""

import importlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from search.params import Augmentation

Pixels = NDArray[np.uint8]
Transform = Callable[[Pixels], Pixels]


def build_augmentation(augment: Augmentation, size: int, seed: int) -> Transform:
    """A function that changes one image after the other, in a sequence the seed decides.

    Hairs are drawn first, so that they turn and blur with the skin; the vignette comes last, as
    in the optics. What geometry uncovers is filled by reflection: a black corner would tell the
    angle.

    Args:
        augment: strengths; where all are 0 the images come back as they are.
        size: side of the images in pixels.

    Returns:
        (size, size, 3) -> (size, size, 3). It keeps a random state: one per process or thread.
    """
    steps: list[Transform] = []
    rng = np.random.default_rng(seed)
    if augment.hair:
        steps.append(partial(_sometimes, augment.hair, rng, partial(draw_hairs, rng=rng)))
    if transforms := _library_transforms(augment):
        # A trial owns one core: more threads of OpenCV's would only fight the other trials'.
        cv2.setNumThreads(0)
        steps.append(partial(_compose, _albumentations().Compose(transforms, seed=seed)))
    if augment.vignette:
        distance = _distance_from_centre(size)
        shade = partial(draw_vignette, distance=distance, rng=rng)
        steps.append(partial(_sometimes, augment.vignette, rng, shade))
    return partial(_apply, steps)


def draw_hairs(pixels: Pixels, *, rng: np.random.Generator) -> Pixels:
    """Draw 2 to 8 dark, slightly bent hairs; colourless, to suit grayscale too."""
    side = pixels.shape[0]
    haired = pixels.copy()
    along = np.linspace(0, 1, 16)[:, None]
    for _ in range(rng.integers(2, 9)):
        start, end = rng.uniform(-0.1, 1.1, (2, 2)) * side
        bend = (start + end) / 2 + rng.normal(0, 0.1, 2) * side
        curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * bend + along**2 * end
        darkness = int(rng.integers(10, 70))
        thickness = int(rng.integers(1, 2 + side // 200))
        points = np.rint(curve).astype(np.int32)[:, None]
        cv2.polylines(haired, [points], False, (darkness,) * 3, thickness, cv2.LINE_AA)
    return haired


def draw_vignette(
    pixels: Pixels, *, distance: NDArray[np.float32], rng: np.random.Generator
) -> Pixels:
    """Darken what lies outside a soft circle, as the round field of a dermatoscope does.

    Args:
        distance: of every pixel from the centre, in sides, (size, size).
    """
    radius, softness = rng.uniform(0.45, 0.65), rng.uniform(0.01, 0.1)
    light = np.clip((radius - distance) / softness + 1, 0, 1)
    shaded: Pixels = (pixels * light[..., None]).astype(np.uint8)
    return shaded


def _library_transforms(augment: Augmentation) -> list[Any]:
    return [*_geometry(augment), *_colours(augment), *_defects(augment)]


def _geometry(augment: Augmentation) -> list[Any]:
    found: list[Any] = []
    if augment.flip_horizontal:
        found.append(_albumentations().HorizontalFlip(p=augment.flip_horizontal))
    if augment.flip_vertical:
        found.append(_albumentations().VerticalFlip(p=augment.flip_vertical))
    if augment.rotation or augment.zoom or augment.shift or augment.shear:
        shift, shear = (-augment.shift, augment.shift), (-augment.shear, augment.shear)
        # One resampling for all four: faster, and it blurs once.
        affine = _albumentations().Affine(
            rotate=(-augment.rotation, augment.rotation),
            scale=(1 - augment.zoom, 1 + augment.zoom),
            keep_ratio=True,
            translate_percent={"x": shift, "y": shift},
            shear={"x": shear, "y": shear},
            border_mode=cv2.BORDER_REFLECT_101,
            p=1,
        )
        found.append(affine)
    return found


def _colours(augment: Augmentation) -> list[Any]:
    if not (augment.brightness or augment.contrast or augment.saturation or augment.hue):
        return []
    jitter = _albumentations().ColorJitter(
        brightness=(1 - augment.brightness, 1 + augment.brightness),
        contrast=(1 - augment.contrast, 1 + augment.contrast),
        saturation=(1 - augment.saturation, 1 + augment.saturation),
        hue=(-augment.hue, augment.hue),
        p=1,
    )
    return [jitter]


def _defects(augment: Augmentation) -> list[Any]:
    found: list[Any] = []
    if augment.blur:
        blur = _albumentations().GaussianBlur(blur_limit=0, sigma_limit=(0.5, 1.5), p=augment.blur)
        found.append(blur)
    if augment.noise:
        noise = _albumentations().GaussNoise(
            std_range=(0.01, 0.05), per_channel=False, p=augment.noise
        )
        found.append(noise)
    if augment.dropout:
        holes = _albumentations().CoarseDropout(
            num_holes_range=(1, 4),
            hole_height_range=(0.1, 0.25),
            hole_width_range=(0.1, 0.25),
            fill=127,
            p=augment.dropout,
        )
        found.append(holes)
    return found


def _albumentations() -> Any:
    # Late, because its import takes 2 s; and it asks PyPI for its version unless told not to.
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    return importlib.import_module("albumentations")


def _compose(compose: Any, pixels: Pixels) -> Pixels:
    changed: Pixels = compose(image=pixels)["image"]
    return changed


def _sometimes(
    probability: float, rng: np.random.Generator, transform: Transform, pixels: Pixels
) -> Pixels:
    return transform(pixels) if rng.random() < probability else pixels


def _apply(steps: list[Transform], pixels: Pixels) -> Pixels:
    for step in steps:
        pixels = step(pixels)
    return pixels


def _distance_from_centre(size: int) -> NDArray[np.float32]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    return np.hypot(axis[:, None], axis[None, :]).astype(np.float32)
