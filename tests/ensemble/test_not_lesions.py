"""Images that are not lesions."""

from pathlib import Path

import numpy as np
import pytest

from ensemble.not_lesions import KINDS, Kind, not_lesions, read_folder
from search.errors import DatasetError
from tests.tiny import tiny_bytes

SIZE = 48


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_as_many_square_rgb_images_as_asked(kind: Kind) -> None:
    images = not_lesions(kind, 4, size=SIZE)
    assert [(image.size, image.mode) for image in images] == [((SIZE, SIZE), "RGB")] * 4
    assert len({image.tobytes() for image in images}) == 4
    assert all(np.asarray(image).std() > 1 for image in images)


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_and_more_images_begin_with_the_same(kind: Kind) -> None:
    two = [image.tobytes() for image in not_lesions(kind, 2, size=SIZE, seed=7)]
    three = [image.tobytes() for image in not_lesions(kind, 3, size=SIZE, seed=7)]
    other = [image.tobytes() for image in not_lesions(kind, 2, size=SIZE, seed=8)]
    assert two == three[:2]
    assert two != other


def test_text_is_dark_on_light_paper() -> None:
    for image in not_lesions("text", 3, size=96):
        levels = np.asarray(image.convert("L"))
        assert np.median(levels) > 200
        assert levels.min() < 0.7 * np.median(levels)


def test_skin_is_redder_than_blue_and_has_no_dark_middle() -> None:
    for image in not_lesions("skin", 6, size=64):
        pixels = np.asarray(image).astype(float)
        red, _, blue = pixels.mean(axis=(0, 1))
        assert red > blue
        middle = np.median(pixels[24:40, 24:40])
        assert middle > 0.85 * np.median(pixels)


def test_none_is_no_image() -> None:
    assert not_lesions("noise", 0) == []


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one of noise, .*; it is 'cats'"):
        not_lesions("cats", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at least 32, it is 31"):
        not_lesions("noise", 1, size=31)


def test_readable_images_of_a_folder_are_found_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.png").write_bytes(tiny_bytes(1))
    (tmp_path / "inner" / "b.jpg").write_bytes(tiny_bytes(2, kind="JPEG"))
    (tmp_path / "notes.txt").write_text("no image")
    assert [image.mode for image in read_folder(tmp_path)] == ["RGB", "RGB"]
    assert len(read_folder(tmp_path, limit=1)) == 1


def test_a_folder_without_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DatasetError, match=r"none of its 1 files is a readable image; put JPEG"):
        read_folder(tmp_path)
    with pytest.raises(DatasetError, match=r"missing: no such folder"):
        read_folder(tmp_path / "missing")
