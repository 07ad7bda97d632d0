from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from serving.explain.overlay import as_rows, heat_png, pool_maps

LEFT = np.array([[1, 0], [1, 0]], np.float32)
TOP = np.array([[1, 1], [0, 0]], np.float32)
maps = st.tuples(st.integers(1, 90), st.integers(1, 90)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(0, 1, width=32), fill=st.just(0.5))
)


def picture_of(heat: NDArray[np.float32], size: tuple[int, int]) -> Image.Image:
    return Image.open(BytesIO(heat_png(heat, size)), formats=["PNG"])


def test_maps_are_pooled_by_their_weights() -> None:
    pooled = pool_maps({"left": LEFT, "top": TOP}, {"left": 0.6, "top": 0.2})
    np.testing.assert_allclose(pooled, [[1, 0.25], [0.75, 0]], atol=1e-6)
    assert pooled.dtype == np.float32


def test_a_map_alone_is_itself() -> None:
    np.testing.assert_array_equal(pool_maps({"left": LEFT}, {"left": 0.1, "top": 0.9}), LEFT)


def test_maps_of_different_sizes_meet_at_the_largest_and_at_most_64_cells() -> None:
    small, wide = np.ones((2, 2), np.float32), np.ones((3, 100), np.float32)
    pooled = pool_maps({"a": small, "b": wide}, {"a": 1, "b": 1})
    assert pooled.shape == (3, 64)
    np.testing.assert_allclose(pooled, 1)


def test_nothing_marked_stays_nothing() -> None:
    empty = np.zeros((4, 4), np.float32)
    assert not pool_maps({"a": empty, "b": empty}, {"a": 1, "b": 1}).any()
    assert not np.any(as_rows(empty))
    assert picture_of(empty, (40, 30)).getchannel("A").getextrema() == (0, 0)


@given(heat=maps)
@settings(max_examples=30, deadline=None)
def test_rows_are_few_and_between_0_and_1(heat: NDArray[np.float32]) -> None:
    rows = np.array(as_rows(heat))
    assert rows.shape == (min(len(heat), 28), min(heat.shape[1], 28))
    assert rows.min() >= 0
    assert rows.max() == (1 if heat.any() and rows.any() else 0)


def test_rows_hold_3_decimals() -> None:
    third = np.array([[1 / 3, 1.0]], np.float32)
    assert as_rows(third) == [[0.333, 1.0]]


@pytest.mark.parametrize(
    ("image", "png"),
    [
        ((180, 180), (180, 180)),
        ((4000, 3000), (512, 384)),
        ((30, 6000), (3, 512)),
        ((9000, 1), (512, 1)),
        ((1, 1), (1, 1)),
    ],
)
def test_a_picture_has_its_images_shape_within_512_pixels(
    image: tuple[int, int], png: tuple[int, int]
) -> None:
    picture = picture_of(LEFT, image)
    picture.load()
    assert (picture.size, picture.mode) == (png, "RGBA")


def test_what_is_marked_is_seen_and_the_rest_clear() -> None:
    alpha = np.asarray(picture_of(LEFT, (64, 64)).getchannel("A"))
    assert alpha[:, 0].min() == alpha.max() == 204
    assert alpha[:, -1].max() == 0
    assert (np.diff(alpha[32].astype(int)) <= 0).all()  # bilinear: it fades


def test_colours_get_lighter_with_the_value_so_that_they_need_no_colour_vision() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    red, green, blue, alpha = np.asarray(picture_of(ramp, (256, 1)), float)[0].T
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # of ITU-R BT.709
    assert (np.diff(luminance) > -0.5).all()
    assert luminance[-1] - luminance[0] > 180
    assert (np.diff(alpha) >= 0).all()


def test_a_picture_is_small() -> None:
    noise = np.random.default_rng(0).random((64, 64), np.float32)
    assert len(heat_png(noise, (4000, 4000))) < 1_000_000
