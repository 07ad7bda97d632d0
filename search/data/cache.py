"""Decoded images as one uint8 memory map on each node, keyed by content, size and preprocessing."""

import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import NDArray

from search.data.images import read_image, readers
from search.data.room import lock_of, make_room, open_map
from search.data.transforms import Preprocessing, decode, prepare
from search.errors import CacheError, DamagedImageError

FORMAT = 1
SPARE = 64 * 2**20  # bytes left free on the disk beside the map
Progress = Callable[[int, int], None]
FILE = "pixels.npy"
D = TypeVar("D", np.uint8, np.float32)
T = TypeVar("T")


@dataclass(frozen=True)
class ImageCache:
    """One complete map.

    Attributes:
        pixels: (n_contents, size, size, 3) uint8, memory-mapped read-only.
        row_of: row by content digest; damaged contents have none.
        damaged: problem by content digest.
        folder: where the map lies.
        limit: bytes that all maps beside it may take.
    """

    pixels: NDArray[np.uint8]
    row_of: Mapping[str, int]
    damaged: Mapping[str, str]
    folder: Path
    limit: int | None = None

    def rows(self, digests: list[str]) -> NDArray[np.int64]:
        """Rows of images by their content digests, (n_images,).

        Raises:
            CacheError: for a damaged image, or one that is not in this cache.
        """
        for digest in digests:
            if digest not in self.row_of:
                reason = self.damaged.get(digest, f"no image with content {digest[:12]} is cached")
                raise CacheError(f"{reason}; drop it with audit.damaged: drop")
        return np.array([self.row_of[digest] for digest in digests], np.int64)


def cache_images(
    paths: Mapping[str, Path | str],
    preprocessing: Preprocessing,
    folder: Path,
    *,
    threads: int = 2,
    limit: int | None = None,
    progress: Progress | None = None,
) -> ImageCache:
    """Open the map of these images; decode and write it first where it is not there.

    Args:
        paths: a file, or an object's URL, for each content digest (SHA-256 of the file's bytes).
        preprocessing: size, grayscale and colour constancy decide the pixels.
        folder: holds all maps of this machine.
        threads: that decode; objects are fetched many at once.
        limit: bytes that all maps may take; those that nobody has open make room for others.
        progress: called with (images done, images in all).

    Raises:
        CacheError: the disk is full or cannot be written, or the limit is too low.
        StudyError: an object store does not give an image; see search.location.explained.
    """
    pixels_of = preprocessing.model_dump(include={"size", "grayscale", "colour_constancy"})
    key = _key(sorted(paths), pixels_of)
    target = folder / key

    def build(scratch: Path) -> None:
        shape = (len(paths), preprocessing.size, preprocessing.size, 3)
        pixels = create_map(scratch / FILE, shape, np.uint8, limit=limit)
        _write(scratch, pixels, paths, _fill(pixels, paths, preprocessing, threads, progress))

    return build_once(target, build, partial(open_cache, limit=limit))


def cache_rows(
    images: pd.DataFrame, preprocessing: Preprocessing, folder: Path, **options: Any
) -> tuple[ImageCache, NDArray[np.int64]]:
    """The map of a table's images (columns digest and path), and their rows in it, (n_images,)."""
    paths = dict(zip(images["digest"], images["path"], strict=True))
    cache = cache_images(paths, preprocessing, folder, **options)
    return cache, cache.rows(images["digest"].tolist())


def open_cache(folder: Path, *, limit: int | None = None) -> ImageCache:
    """Open a complete map without copying it; it is in use as long as its pixels are."""
    index = json.loads((folder / "index.json").read_text())
    pixels = open_map(folder / FILE, np.uint8)
    return ImageCache(pixels, index["row_of"], index["damaged"], folder, limit)


def build_once(target: Path, build: Callable[[Path], None], opened: Callable[[Path], T]) -> T:
    """Open a folder of the cache; make it first, whole, unless it is there.

    Two processes that ask at once build it once: the second waits at a file lock.

    Args:
        build: fills a scratch folder, which then takes its name.
        opened: what to do with the folder before another process may remove it.

    Raises:
        CacheError: the disk is full or cannot be written.
    """
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock_of(target)):
            if not target.exists():
                _build_whole(target, build)
            with suppress(PermissionError):  # another user's, who may use it all the same
                os.utime(target)  # what was not opened for longest goes first
            return opened(target)
    except OSError as error:
        raise CacheError(
            f"{folder}: the image cache cannot be written ({error.strerror or error}); "
            "name another folder under cache"
        ) from error


def create_map(
    file: Path, shape: tuple[int, ...], dtype: type[D], *, limit: int | None = None
) -> "np.memmap[Any, np.dtype[D]]":
    """A new memory map whose room on the disk is taken at once.

    Args:
        file: in the scratch folder of a map.
        limit: bytes that all maps may take.

    Raises:
        CacheError: the disk, or the limit, has too little room.
    """
    folder, needed = file.parent.parent, math.prod(shape) * np.dtype(dtype).itemsize
    if limit is None:
        return _take(file, shape, dtype, needed)
    with FileLock(folder / "room.lock"):  # until what was made is taken
        make_room(folder, needed, limit)
        return _take(file, shape, dtype, needed)


def _take(
    file: Path, shape: tuple[int, ...], dtype: type[D], needed: int
) -> "np.memmap[Any, np.dtype[D]]":
    folder = file.parent.parent
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise CacheError(
            f"{folder}: the image cache needs {needed / 2**20:.0f} MiB and {free / 2**20:.0f} MiB "
            "are free; free some, or name another folder under cache"
        )
    rows = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
    with file.open("r+b") as raw:  # a full disk must be an error now, not a signal later
        os.posix_fallocate(raw.fileno(), 0, file.stat().st_size)
    return rows


def _build_whole(target: Path, build: Callable[[Path], None]) -> None:
    for stale in target.parent.glob(f"{target.name}.*.tmp"):  # of a build that was killed
        shutil.rmtree(stale, ignore_errors=True)
    scratch = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    scratch.mkdir()
    try:
        build(scratch)
        scratch.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _key(digests: list[str], pixels_of: Mapping[str, object]) -> str:
    text = json.dumps([FORMAT, pixels_of, digests], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _write(
    folder: Path, pixels: "np.memmap[Any, Any]", paths: Iterable[str], damaged: Mapping[str, str]
) -> None:
    pixels.flush()
    row_of = {digest: i for i, digest in enumerate(paths) if digest not in damaged}
    (folder / "index.json").write_text(json.dumps({"row_of": row_of, "damaged": damaged}))


def _fill(
    pixels: NDArray[np.uint8],
    paths: Mapping[str, Path | str],
    preprocessing: Preprocessing,
    threads: int,
    progress: Progress | None,
) -> dict[str, str]:
    """Decode every image into its row; the damaged ones are returned by digest."""
    damaged: dict[str, str] = {}
    decoding = BoundedSemaphore(threads)

    def fill(item: tuple[int, tuple[str, Path | str]]) -> None:
        row, (digest, path) = item
        content = _read(path, digest)
        try:
            with decoding:
                pixels[row] = prepare(decode(content, name=str(path)), preprocessing)
        except DamagedImageError as error:
            damaged[digest] = str(error)

    with ThreadPoolExecutor(readers(paths.values(), threads)) as pool:
        for done, _ in enumerate(pool.map(fill, enumerate(paths.items())), start=1):
            if progress is not None:
                progress(done, len(paths))
    return damaged


def _read(path: Path | str, digest: str) -> bytes:
    """A file's bytes, if they are still those that the audit saw."""
    try:
        content = read_image(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower().rstrip(".")
        raise CacheError(f"{path}: {reason}; bring the file back and run again") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CacheError(f"{path}: changed since the audit; search into another output folder")
    return content
