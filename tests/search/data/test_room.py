"""Maps that nobody has open make room for others, within the bound of a node's cache."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from search.data.cache import ImageCache, cache_images
from search.data.room import make_room
from search.data.transforms import Preprocessing
from search.errors import CacheError
from tests.search.data.test_cache import some_images

# Three images of 32 pixels are 9,216 bytes, and some hundred of an index and a header.
BOUND = 25_000  # two such maps, but not three
HOLD = """
import sys
from pathlib import Path
from search.data.room import open_map
import numpy as np
pixels = open_map(Path(sys.argv[1]), np.uint8)[:1]
print("open", flush=True)
sys.stdin.read()
"""


def build(folder: Path, name: str, *, size: int = 32, limit: int | None = BOUND) -> ImageCache:
    """A map of three images of their own."""
    images = some_images(folder / name, 3)
    paths = {
        digest: path.rename(path.with_name(f"{digest}.jpg")) for digest, path in images.items()
    }
    return cache_images(paths, pixels_of(size, name), folder / "cache", limit=limit)


def pixels_of(size: int, name: str) -> Preprocessing:
    grayscale, constancy = {"a": (0, 0), "b": (0, 1), "c": (1, 0), "d": (1, 1)}[name]
    return Preprocessing(
        size=size,
        grayscale=bool(grayscale),
        colour_constancy=bool(constancy),
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )


def age(cache: ImageCache, seconds: int) -> Path:
    """As if it was last opened so long ago; the map is let go of."""
    when = 1_700_000_000 - seconds
    os.utime(cache.folder, (when, when))
    return cache.folder


@contextmanager
def held_elsewhere(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has a map open."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder / "pixels.npy")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


def test_the_map_that_was_not_opened_for_longest_goes(tmp_path: Path) -> None:
    a, b = (age(build(tmp_path, name), seconds) for name, seconds in (("a", 10), ("b", 20)))
    c = build(tmp_path, "c")
    assert (a.exists(), b.exists(), c.folder.exists()) == (True, False, True)


def test_opening_a_map_again_counts(tmp_path: Path) -> None:
    first = build(tmp_path, "a")
    a, row_of = age(first, 20), dict(first.row_of)
    b = age(build(tmp_path, "b"), 10)
    del first
    paths = {digest: Path("not read") for digest in row_of}
    again = cache_images(paths, pixels_of(32, "a"), tmp_path / "cache", limit=BOUND)
    assert again.folder == a
    del again
    build(tmp_path, "c")
    assert (a.exists(), b.exists()) == (True, False)


def test_without_a_bound_nothing_goes(tmp_path: Path) -> None:
    folders = [build(tmp_path, name, limit=None).folder for name in "abcd"]
    assert all(folder.exists() for folder in folders)


def test_a_map_that_another_process_has_open_stays(tmp_path: Path) -> None:
    a, b = (age(build(tmp_path, name), seconds) for name, seconds in (("a", 20), ("b", 10)))
    with held_elsewhere(a):
        c = age(build(tmp_path, "c"), 5)
        assert (a.exists(), b.exists(), c.exists()) == (True, False, True)
    build(tmp_path, "b")  # the process is gone
    assert (a.exists(), c.exists()) == (False, True)


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    a, _ = (age(build(tmp_path, name), seconds) for name, seconds in (("a", 20), ("b", 10)))
    with held_elsewhere(a) as process:
        process.kill()
        process.wait()
        build(tmp_path, "c")
    assert not a.exists()


def test_a_view_of_the_pixels_keeps_the_map(tmp_path: Path) -> None:
    row = build(tmp_path, "a").pixels[1]
    before = row.copy()
    (a,) = (tmp_path / "cache").glob("*/")
    os.utime(a, (1, 1))
    b = age(build(tmp_path, "b"), 10)
    build(tmp_path, "c")
    assert (a.exists(), b.exists()) == (True, False)
    np.testing.assert_array_equal(row, before)


def test_where_open_maps_leave_too_little_nothing_goes_and_it_is_said(tmp_path: Path) -> None:
    held = build(tmp_path, "a")
    b = age(build(tmp_path, "b"), 10)
    told = r"of 2\.43e-05 GB does not fit, cache_gb is 2\.5e-05 and maps in use take 9\.\d+e-06 GB"
    with pytest.raises(CacheError, match=told + "; raise cache_gb, or search smaller or fewer"):
        build(tmp_path, "c", size=52)
    assert held.folder.exists()
    assert b.exists()
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_a_map_that_is_being_built_counts_and_stays(tmp_path: Path) -> None:
    a = age(build(tmp_path, "a"), 10)
    other = tmp_path / "cache" / f"{'0' * 24}.01234567.tmp"
    other.mkdir()
    (other / "pixels.npy").write_bytes(bytes(9_300))
    os.utime(other, (1, 1))
    with FileLock(tmp_path / "cache" / f"{'0' * 24}.lock"):
        build(tmp_path, "b")
        assert (other.exists(), a.exists()) == (True, False)
    build(tmp_path, "c")  # its builder was killed: nobody holds the lock
    assert not other.exists()


def test_what_is_no_map_is_neither_counted_nor_removed(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    (folder / "photographs").mkdir(parents=True)
    (folder / "photographs" / "holiday.npy").write_bytes(bytes(10 * BOUND))
    make_room(folder, BOUND, BOUND)
    assert (folder / "photographs" / "holiday.npy").exists()
    with pytest.raises(CacheError, match=re.escape("maps in use take 0 GB")):
        make_room(folder, BOUND + 1, BOUND)


def test_builders_at_once_stay_within_the_bound(tmp_path: Path) -> None:
    def attempt(name: str) -> None:
        with suppress(CacheError):  # two others are being built
            build(tmp_path, name)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, "abcd"))
    files = (tmp_path / "cache").glob("*/*")
    assert 0 < sum(file.stat().st_size for file in files) <= BOUND + 1_000
    assert not list((tmp_path / "cache").glob("*.tmp"))
