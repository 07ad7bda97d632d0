"""The cache holds what a direct decode gives, is built once, and names what is damaged."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.data.cache import cache_images
from search.data.transforms import Preprocessing, decode, prepare
from search.errors import CacheError
from tests.search.data.layouts import draw

PIXELS = Preprocessing(size=16, mean=(0, 0, 0), std=(1, 1, 1))


def some_images(folder: Path, count: int = 3) -> dict[str, Path]:
    paths = [folder / "images" / f"{i}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        draw(path, i)
    return {digest_of(path): path for path in paths}


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(size=st.integers(8, 64), grayscale=st.booleans(), colour_constancy=st.booleans())
def test_a_row_equals_a_direct_decode(
    tmp_path: Path, size: int, grayscale: bool, colour_constancy: bool
) -> None:
    pixels = PIXELS.model_copy(
        update={"size": size, "grayscale": grayscale, "colour_constancy": colour_constancy}
    )
    images = some_images(tmp_path)
    cache = cache_images(images, pixels, tmp_path / "cache")
    for digest, path in images.items():
        row = cache.rows([digest])[0]
        np.testing.assert_array_equal(cache.pixels[row], prepare(decode(path), pixels))


def test_it_opens_without_a_copy_and_read_only(tmp_path: Path) -> None:
    cache = cache_images(some_images(tmp_path), PIXELS, tmp_path / "cache")
    assert isinstance(cache.pixels, np.memmap)
    assert not cache.pixels.flags.writeable


def test_a_second_call_opens_what_the_first_built(tmp_path: Path) -> None:
    images = some_images(tmp_path)
    first = cache_images(images, PIXELS, tmp_path / "cache")
    shutil.rmtree(tmp_path / "images")
    again = cache_images(images, PIXELS, tmp_path / "cache")
    assert again.folder == first.folder


def test_the_mean_of_a_backbone_does_not_ask_for_another_map(tmp_path: Path) -> None:
    images = some_images(tmp_path)
    other = PIXELS.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    folders = {cache_images(images, p, tmp_path / "cache").folder for p in (PIXELS, other)}
    assert len(folders) == 1


@pytest.mark.parametrize("change", [{"size": 20}, {"grayscale": True}, {"colour_constancy": True}])
def test_other_pixels_are_another_map(tmp_path: Path, change: dict[str, object]) -> None:
    images = some_images(tmp_path)
    other = PIXELS.model_copy(update=change)
    folders = {cache_images(images, p, tmp_path / "cache").folder for p in (PIXELS, other)}
    assert len(folders) == 2


def test_two_builders_at_once_build_one_map(tmp_path: Path) -> None:
    images = some_images(tmp_path, 20)
    told: list[int] = []
    with ThreadPoolExecutor(4) as pool:
        caches = list(
            pool.map(
                lambda _: cache_images(
                    images, PIXELS, tmp_path / "cache", progress=lambda done, _: told.append(done)
                ),
                range(4),
            )
        )
    assert told == list(range(1, 21))
    assert len({cache.folder for cache in caches}) == 1
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_a_damaged_image_is_named_and_stops_no_other(tmp_path: Path) -> None:
    images = some_images(tmp_path)
    broken = tmp_path / "images" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no jpeg")
    bad = digest_of(broken)
    cache = cache_images({**images, bad: broken}, PIXELS, tmp_path / "cache")
    assert len(cache.row_of) == 3
    with pytest.raises(CacheError, match=r"broken.jpg: .*; drop it with audit.damaged: drop"):
        cache.rows([bad])


def test_a_file_that_changed_since_the_audit_is_refused(tmp_path: Path) -> None:
    images = some_images(tmp_path)
    draw(tmp_path / "images" / "1.jpg", 99)
    with pytest.raises(CacheError, match=r"1.jpg: changed since the audit"):
        cache_images(images, PIXELS, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/"))


def test_a_file_that_is_away_is_not_remembered_as_damaged(tmp_path: Path) -> None:
    images = some_images(tmp_path)
    path = tmp_path / "images" / "1.jpg"
    path.rename(tmp_path / "away.jpg")
    with pytest.raises(CacheError, match=r"1.jpg: no such file or directory; bring the file back"):
        cache_images(images, PIXELS, tmp_path / "cache")
    (tmp_path / "away.jpg").rename(path)
    assert len(cache_images(images, PIXELS, tmp_path / "cache").row_of) == 3


def test_a_full_disk_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = some_images(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10 * 2**20))
    with pytest.raises(CacheError, match="needs 0 MiB and 10 MiB are free; free some"):
        cache_images(images, PIXELS, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    images = some_images(tmp_path)
    (tmp_path / "cache").write_text("a file stands here")
    with pytest.raises(CacheError, match="the image cache cannot be written"):
        cache_images(images, PIXELS, tmp_path / "cache")
