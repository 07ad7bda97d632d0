"""Decoded images as one uint8 memory map on each node, keyed by content, size and preprocessing."""

import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from filelock import FileLock
from numpy.typing import NDArray

from search.data.transforms import Preprocessing, decode, prepare
from search.errors import CacheError, DamagedImageError

FORMAT = 1
SPARE = 64 * 2**20  # bytes left free on the disk beside the map
Progress = Callable[[int, int], None]
D = TypeVar("D", np.uint8, np.float32)


@dataclass(frozen=True)
class ImageCache:
    """One complete map.

    Attributes:
        pixels: (n_contents, size, size, 3) uint8, memory-mapped read-only.
        row_of: row by content digest; damaged contents have none.
        damaged: problem by content digest.
        folder: where the map lies.
    """

    pixels: NDArray[np.uint8]
    row_of: Mapping[str, int]
    damaged: Mapping[str, str]
    folder: Path

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
    paths: Mapping[str, Path],
    preprocessing: Preprocessing,
    folder: Path,
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> ImageCache:
    """Open the map of these images; decode and write it first where it is not there.

    Args:
        paths: a file for each content digest (SHA-256 of the file's bytes).
        preprocessing: size, grayscale and colour constancy decide the pixels.
        folder: holds all maps of this machine.
        progress: called with (images done, images in all).

    Raises:
        CacheError: the disk is full or cannot be written.
    """
    pixels_of = preprocessing.model_dump(include={"size", "grayscale", "colour_constancy"})
    key = _key(sorted(paths), pixels_of)
    target = folder / key
    build_once(target, lambda scratch: _build(paths, preprocessing, scratch, threads, progress))
    return open_cache(target)


def cache_rows(
    images: pd.DataFrame, preprocessing: Preprocessing, folder: Path, **options: Any
) -> tuple[ImageCache, NDArray[np.int64]]:
    """The map of a table's images (columns digest and path), and their rows in it, (n_images,)."""
    paths = {d: Path(p) for d, p in zip(images["digest"], images["path"], strict=True)}
    cache = cache_images(paths, preprocessing, folder, **options)
    return cache, cache.rows(images["digest"].tolist())


def open_cache(folder: Path) -> ImageCache:
    """Open a complete map without copying it."""
    index = json.loads((folder / "index.json").read_text())
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")
    return ImageCache(pixels, index["row_of"], index["damaged"], folder)


def build_once(target: Path, build: Callable[[Path], None]) -> None:
    """Make a folder of the cache, whole, unless it is there.

    Two processes that ask at once build it once: the second waits at a file lock.

    Args:
        build: fills a scratch folder, which then takes its name.

    Raises:
        CacheError: the disk is full or cannot be written.
    """
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{target.name}.lock"):
            if not target.exists():
                _build_whole(target, build)
    except OSError as error:
        raise CacheError(
            f"{folder}: the image cache cannot be written ({error.strerror or error}); "
            "name another folder under cache"
        ) from error


def create_map(file: Path, shape: tuple[int, ...], dtype: type[D]) -> "np.memmap[Any, np.dtype[D]]":
    """A new memory map whose room on the disk is taken at once.

    Raises:
        CacheError: the disk has too little room.
    """
    folder, needed = file.parent.parent, math.prod(shape) * np.dtype(dtype).itemsize
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


def _build(
    paths: Mapping[str, Path],
    preprocessing: Preprocessing,
    folder: Path,
    threads: int,
    progress: Progress | None,
) -> None:
    shape = (len(paths), preprocessing.size, preprocessing.size, 3)
    pixels = create_map(folder / "pixels.npy", shape, np.uint8)
    damaged = _fill(pixels, paths, preprocessing, threads, progress)
    pixels.flush()
    row_of = {digest: i for i, digest in enumerate(paths) if digest not in damaged}
    (folder / "index.json").write_text(json.dumps({"row_of": row_of, "damaged": damaged}))


def _fill(
    pixels: NDArray[np.uint8],
    paths: Mapping[str, Path],
    preprocessing: Preprocessing,
    threads: int,
    progress: Progress | None,
) -> dict[str, str]:
    """Decode every image into its row; the damaged ones are returned by digest."""
    damaged: dict[str, str] = {}

    def fill(item: tuple[int, tuple[str, Path]]) -> None:
        row, (digest, path) = item
        content = _read(path, digest)
        try:
            pixels[row] = prepare(decode(content), preprocessing)
        except DamagedImageError as error:
            damaged[digest] = f"{path}: {str(error).removeprefix('image: ')}"

    with ThreadPoolExecutor(threads) as pool:
        for done, _ in enumerate(pool.map(fill, enumerate(paths.items())), start=1):
            if progress is not None:
                progress(done, len(paths))
    return damaged


def _read(path: Path, digest: str) -> bytes:
    """A file's bytes, if they are still those that the audit saw."""
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CacheError(f"{path}: {reason}; bring the file back and run again") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise CacheError(f"{path}: changed since the audit; search into another output folder")
    return content
