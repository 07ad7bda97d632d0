"""Decoding and preprocessing."""

import subprocess
import sys
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from search.data.transforms import Preprocessing, decode, normalise, prepare, shades_of_gray
from search.errors import DamagedImageError

PLAIN = Preprocessing(size=8, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_every_format_is_told_by_its_content_not_its_name(form: str, tmp_path: Path) -> None:
    file = tmp_path / "picture.gif"
    file.write_bytes(encoded(Image.new("RGB", (6, 4), RED), form))
    image = decode(file)
    assert (image.mode, image.size) == ("RGB", (6, 4))
    assert np.abs(np.asarray(image, dtype=int) - RED).max() < 4


def test_a_file_and_its_bytes_decode_to_the_same_pixels(tmp_path: Path) -> None:
    file = tmp_path / "noise.jpg"
    file.write_bytes(encoded(noise(40, 30), "JPEG"))
    for at_least in (None, 8):
        from_file = decode(file, at_least=at_least)
        assert from_file.tobytes() == decode(file.read_bytes(), at_least=at_least).tobytes()


@pytest.mark.parametrize("form", ["GIF", "TIFF", "ICO"])
def test_other_formats_are_refused(form: str) -> None:
    with pytest.raises(DamagedImageError, match=r"^image: not a JPEG, PNG, WEBP, BMP image; conv"):
        decode(encoded(Image.new("RGB", (16, 16)), form))


def test_text_is_refused_by_its_file_name(tmp_path: Path) -> None:
    file = tmp_path / "lesion.jpg"
    file.write_text("no image")
    with pytest.raises(DamagedImageError, match=r"lesion\.jpg: not a JPEG"):
        decode(file)


def test_no_bytes_are_refused() -> None:
    with pytest.raises(DamagedImageError, match="not a JPEG"):
        decode(b"")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedImageError, match=r"none\.png: no such file; check the path"):
        decode(tmp_path / "none.png")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_truncated_image_is_refused_in_one_line(form: str) -> None:
    content = encoded(noise(64, 64), form)
    with pytest.raises(DamagedImageError, match=r"^image: damaged \(.+\); replace") as caught:
        decode(content[: len(content) // 2])
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(cut=st.integers(0, 400), flips=st.lists(st.tuples(st.integers(8, 400), st.integers(0, 255))))
def test_damage_of_any_kind_gives_an_image_or_the_one_error(
    cut: int, flips: list[tuple[int, int]]
) -> None:
    content = bytearray(encoded(noise(8, 8)))
    for position, value in flips:
        content[position % len(content)] = value
    with suppress(DamagedImageError):
        assert decode(bytes(content[: len(content) - cut])).mode == "RGB"


def test_more_pixels_than_allowed_are_refused_before_they_are_decoded() -> None:
    content = encoded(Image.new("RGB", (30, 20)))
    assert decode(content, max_pixels=600).size == (30, 20)
    with pytest.raises(DamagedImageError, match=r"30x20 is more than 599 pixels"):
        decode(content[:60], max_pixels=599)


@pytest.mark.parametrize("side", [10_000, 14_000])
def test_a_decompression_bomb_is_refused(side: int) -> None:
    header = bytearray(encoded(Image.new("1", (8, 8)), "BMP"))
    header[18:26] = side.to_bytes(4, "little") * 2
    with pytest.raises(DamagedImageError, match="pixels"):
        decode(bytes(header))


def test_every_exif_orientation_comes_out_upright() -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16] = RED, GREEN, BLUE
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: np.rot90(upright),
        7: np.rot90(upright, 2).transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }  # fmt: skip
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(Image.fromarray(np.ascontiguousarray(pixels)), "PNG", exif=exif)
        assert np.array_equal(np.asarray(decode(content)), upright), orientation


def test_metadata_is_dropped() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a patient's name"
    image = decode(encoded(noise(8, 8), "JPEG", exif=exif, comment=b"another"))
    assert image.info == {}
    assert b"patient" not in encoded(image, "JPEG")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("exif", [b"", b"Exif\x00\x00", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"])
def test_damaged_exif_does_not_cost_the_image(exif: bytes) -> None:
    assert decode(encoded(noise(8, 8), "JPEG", exif=exif)).size == (8, 8)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_only_the_first_frame_of_an_animation_counts(form: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
    assert decode(content).getpixel((3, 3)) == RED


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_other_colour_modes_become_rgb(mode: str) -> None:
    image = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    content = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    assert np.asarray(decode(content)).tolist() == np.full((8, 8, 3), 255).tolist()


def test_sixteen_bits_keep_their_upper_eight() -> None:
    gray = np.array([[0x0000, 0x12FF], [0x8000, 0xFFFF]], np.uint16)
    image = decode(encoded(Image.fromarray(gray)))
    assert np.asarray(image)[..., 1].tolist() == [[0x00, 0x12], [0x80, 0xFF]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_lie_over_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    content = (
        encoded(Image.new("P", (4, 4)), transparency=b"\x00") if mode == "P"
        else encoded(clear.convert(mode))
    )  # fmt: skip
    assert decode(content).getpixel((1, 1)) == (255, 255, 255)


def test_a_draft_keeps_both_sides_at_least_as_long_as_asked() -> None:
    content = encoded(noise(200, 150), "JPEG")
    assert decode(content).size == (200, 150)
    assert decode(content, at_least=76).size == (200, 150)
    assert decode(content, at_least=75).size == (100, 75)
    assert decode(content, at_least=16).size == (25, 19)


def test_squashing_keeps_what_lies_at_the_edges() -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :2], pixels[:, -2:] = RED, GREEN
    prepared = prepare(Image.fromarray(pixels), PLAIN)
    assert prepared.shape == (8, 8, 3)
    assert prepared.dtype == np.uint8
    assert prepared[4, 0, 0] > 200
    assert prepared[4, -1, 1] > 200


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    prepared = prepare(Image.fromarray(stripes), PLAIN)
    assert np.abs(prepared.astype(int) - 128).max() < 20


def test_an_image_of_the_right_size_keeps_its_pixels() -> None:
    image = noise(8, 8)
    assert np.array_equal(prepare(image, PLAIN), np.asarray(image))


def test_grayscale_is_luminance_in_three_equal_channels() -> None:
    gray = PLAIN.model_copy(update={"grayscale": True})
    for colour, luminance in ((RED, 76), (GREEN, 150), (BLUE, 29)):
        prepared = prepare(Image.new("RGB", (8, 8), colour), gray)
        assert np.unique(prepared).tolist() == [luminance]


def test_colour_constancy_turns_an_evenly_tinted_gray_neutral() -> None:
    constant = PLAIN.model_copy(update={"colour_constancy": True})
    prepared = prepare(Image.new("RGB", (8, 8), (200, 150, 100)), constant)
    assert np.ptp(prepared) <= 1


def test_shades_of_gray_agrees_with_its_formula() -> None:
    pixels = np.asarray(noise(9, 7))
    light = (pixels.astype(float) ** 6).mean(axis=(0, 1)) ** (1 / 6)
    light /= np.sqrt((light**2).sum())
    expected = np.clip(np.rint(pixels / (light * np.sqrt(3))), 0, 255)
    assert np.array_equal(shades_of_gray(pixels), expected)


@pytest.mark.parametrize("colour", [(0, 0, 0), (90, 90, 90), (255, 255, 255)])
def test_shades_of_gray_leaves_gray_and_black_alone(colour: tuple[int, int, int]) -> None:
    pixels = np.full((4, 4, 3), colour, np.uint8)
    assert np.array_equal(shades_of_gray(pixels), pixels)


@given(hnp.arrays(np.uint8, (4, 5, 3)))
def test_shades_of_gray_keeps_the_order_within_each_channel(pixels: NDArray[np.uint8]) -> None:
    balanced = shades_of_gray(pixels)
    for c in range(3):
        order = np.argsort(pixels[..., c], axis=None, kind="stable")
        assert (np.diff(balanced[..., c].ravel()[order].astype(int)) >= 0).all()


def test_normalise_moves_channels_first_and_scales_each_by_its_own() -> None:
    images = torch.zeros((2, 8, 8, 3), dtype=torch.uint8)
    images[..., 0] = 255
    normalised = normalise(images, PLAIN)
    assert (normalised.shape, normalised.dtype) == ((2, 3, 8, 8), torch.float32)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(normalised[1, :, 5, 5], expected)


def test_decoding_needs_no_torch() -> None:
    code = "import sys, search.data.transforms; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
