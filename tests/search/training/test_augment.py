"""Random changes of training images."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search.params import Augmentation
from search.training.augment import build_augmentation

SIZE = 32
GRADIENT = np.stack(
    [
        np.tile(np.linspace(60, 200, SIZE), (SIZE, 1)),
        np.tile(np.linspace(60, 200, SIZE)[:, None], (1, SIZE)),
        np.full((SIZE, SIZE), 120.0),
    ],
    axis=-1,
).astype(np.uint8)
WHITE = np.full((SIZE, SIZE, 3), 255, np.uint8)
GRAY = np.full((64, 64, 3), 128, np.uint8)
EVERYTHING = Augmentation(
    rotation=30, flip_horizontal=0.5, flip_vertical=0.5, zoom=0.2, shift=0.1, shear=5,
    brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1, blur=0.5, noise=0.5, dropout=0.5,
    hair=0.5, vignette=0.5,
)  # fmt: skip
EACH = [
    Augmentation(rotation=40),
    Augmentation(flip_horizontal=1),
    Augmentation(flip_vertical=1),
    Augmentation(zoom=0.5),
    Augmentation(shift=0.3),
    Augmentation(shear=20),
    Augmentation(brightness=0.5),
    Augmentation(contrast=0.5),
    Augmentation(saturation=0.5),
    Augmentation(hue=0.3),
    Augmentation(blur=1),
    Augmentation(noise=1),
    Augmentation(dropout=1),
    Augmentation(hair=1),
    Augmentation(vignette=1),
]


def changed(
    augment: Augmentation, pixels: NDArray[np.uint8], *, seed: int = 0, times: int = 1
) -> list[NDArray[np.uint8]]:
    transform = build_augmentation(augment, pixels.shape[0], seed)
    return [transform(pixels) for _ in range(times)]


def test_all_strengths_at_zero_give_the_very_same_array_back() -> None:
    assert build_augmentation(Augmentation(), SIZE, 0)(GRADIENT) is GRADIENT


@pytest.mark.parametrize(
    "augment", EACH, ids=lambda a: next(iter(a.model_dump(exclude_defaults=True)))
)
def test_each_strength_alone_changes_the_image(augment: Augmentation) -> None:
    results = changed(augment, GRADIENT, times=3)
    assert any(not np.array_equal(result, GRADIENT) for result in results)


@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=10, deadline=None)
def test_shape_and_type_stay_and_the_input_is_not_written_to(seed: int) -> None:
    before = GRADIENT.copy()
    for result in changed(EVERYTHING, GRADIENT, seed=seed, times=5):
        assert result.shape == GRADIENT.shape
        assert result.dtype == np.uint8
    assert np.array_equal(GRADIENT, before)


def test_one_seed_gives_one_sequence_and_another_seed_another() -> None:
    first, again, other = (changed(EVERYTHING, GRADIENT, seed=s, times=8) for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_sequence_does_not_depend_on_the_global_random_state() -> None:
    first = changed(EVERYTHING, GRADIENT, times=4)
    np.random.seed(99)
    assert np.array_equal(first, changed(EVERYTHING, GRADIENT, times=4))


def test_a_horizontal_flip_mirrors_left_and_right() -> None:
    (result,) = changed(Augmentation(flip_horizontal=1), GRADIENT)
    assert np.array_equal(result, GRADIENT[:, ::-1])


def test_a_vertical_flip_mirrors_top_and_bottom() -> None:
    (result,) = changed(Augmentation(flip_vertical=1), GRADIENT)
    assert np.array_equal(result, GRADIENT[::-1])


def test_geometry_leaves_no_black_corner() -> None:
    augment = Augmentation(rotation=180, zoom=0.4, shift=0.3, shear=20)
    for result in changed(augment, WHITE, times=20):
        assert result.min() == 255


def test_hairs_are_dark_thin_and_without_colour() -> None:
    for result in changed(Augmentation(hair=1), GRAY, times=10):
        drawn = (result < 128).any(axis=-1)
        assert 0 < drawn.mean() < 0.5
        assert result.min() < 80
        assert np.array_equal(result[..., 0], result[..., 2])


def test_a_vignette_darkens_the_corners_and_leaves_the_centre() -> None:
    for result in changed(Augmentation(vignette=1), GRAY, times=10):
        assert result[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 64
        assert (result[16:48, 16:48] == 128).all()


def test_a_probability_is_the_share_of_images_that_change() -> None:
    results = changed(Augmentation(vignette=0.25), GRAY, times=400)
    share = np.mean([not np.array_equal(result, GRAY) for result in results])
    assert share == pytest.approx(0.25, abs=0.08)


def test_a_gray_image_stays_gray_under_every_change() -> None:
    for result in changed(EVERYTHING, GRAY, times=30):
        assert np.array_equal(result[..., 0], result[..., 1])
        assert np.array_equal(result[..., 1], result[..., 2])


def test_importing_this_file_imports_no_albumentations_and_sets_nothing() -> None:
    code = (
        "import os, sys, search.training.augment; "
        "assert 'albumentations' not in sys.modules; "
        "assert 'NO_ALBUMENTATIONS_UPDATE' not in os.environ"
    )
    clean = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    subprocess.run([sys.executable, "-c", code], check=True, env=clean)
