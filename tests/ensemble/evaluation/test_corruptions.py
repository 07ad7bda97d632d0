"""Images made worse on purpose."""

from functools import cache

import numpy as np
import pytest
from PIL import Image

from ensemble.evaluation.corruptions import KINDS, SEVERITIES, Kind, corrupt
from search.data.synthetic import draw_lesion
from search.data.transforms import Preprocessing, prepare


@cache
def _lesion(size: int, seed: int = 3) -> Image.Image:
    return Image.fromarray(draw_lesion(np.random.default_rng(seed), malignant=True, size=size))


def _change(image: Image.Image, kind: Kind, severity: int, *, seed: int, at: int) -> float:
    """Mean absolute difference that a backbone of `at` pixels sees."""
    seen = Preprocessing(size=at, mean=(0, 0, 0), std=(1, 1, 1))
    worse = prepare(corrupt(image, kind, severity, seed=seed), seen).astype(float)
    return float(np.abs(worse - prepare(image, seen)).mean())


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("size", [96, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_changes_images_more(kind: Kind, size: int, seed: int) -> None:
    images = [_lesion(size, number) for number in range(3)]
    changes = [
        np.mean([_change(image, kind, s, seed=seed, at=size) for image in images])
        for s in SEVERITIES
    ]
    assert (np.diff([0.0, *changes]) > 0).all(), changes


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_small_and_large_images_suffer_alike(kind: Kind, severity: int) -> None:
    small = _lesion(224)
    large = small.resize((896, 896), Image.Resampling.BICUBIC)
    first, second = (_change(image, kind, severity, seed=0, at=112) for image in (small, large))
    assert first == pytest.approx(second, rel=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_size_and_original_stay_and_the_seed_decides(kind: Kind) -> None:
    image = _lesion(64).resize((90, 64))
    before = image.tobytes()
    first, again = (corrupt(image, kind, 4, seed=5) for _ in range(2))
    assert (first.size, first.mode) == ((90, 64), "RGB")
    assert first.tobytes() == again.tobytes() != before
    assert image.tobytes() == before


def test_another_seed_draws_other_noise() -> None:
    image = _lesion(64)
    one, other = (corrupt(image, "noise", 1, seed=seed).tobytes() for seed in (0, 1))
    assert one != other


def test_even_seeds_darken_and_odd_ones_brighten_even_black() -> None:
    image = _lesion(64).copy()
    image.putpixel((0, 0), (0, 0, 0))
    dark, light = (np.asarray(corrupt(image, "brightness", 3, seed=seed)) for seed in (0, 1))
    assert dark.mean() < np.asarray(image).mean() < light.mean()
    assert light[0, 0].tolist() == [76, 76, 76]  # 0.3 of 255
    assert dark[0, 0].tolist() == [0, 0, 0]


def test_brightness_keeps_the_hue() -> None:
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    pixel = corrupt(image, "brightness", 2, seed=0).getpixel((0, 0))
    assert pixel == (149, 74, 37)  # value 200 - 51, the rest in proportion


@pytest.mark.parametrize("kind", KINDS)
def test_the_tiniest_and_longest_images_are_no_trouble(kind: Kind) -> None:
    for size in ((1, 1), (3, 500)):
        assert corrupt(Image.new("RGB", size, (90, 80, 70)), kind, 5, seed=1).size == size


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of blur, noise, .*; it is 'fog'"):
        corrupt(_lesion(32), "fog", 1, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"severity must be 1 to 5, it is 0"):
        corrupt(_lesion(32), "blur", 0, seed=0)
    with pytest.raises(ValueError, match=r"must be RGB, it is L"):
        corrupt(_lesion(32).convert("L"), "blur", 1, seed=0)
