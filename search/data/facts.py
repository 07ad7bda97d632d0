"""What each image file is: its bytes, its pixels, its size and whether it can be read."""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any

import imagehash
import numpy as np
import pandas as pd
import ray
from PIL import Image
from ray.exceptions import RayError, RayTaskError

from search.data.images import read_image, readers
from search.data.transforms import DAMAGE, FORMATS, MAX_PIXELS, decode
from search.errors import ConsiliumError, DamagedImageError, StudyError
from search.location import ABSENT, Stamp, is_url

HASH_SIDE = 16  # 16 x 16 low frequencies: a 256-bit hash
CHUNK = 64  # files a task; a task costs about a millisecond, a file as much or more
NUMBERS = ("size_bytes", "mtime_ns", "width", "height")
COLUMNS = (
    "path", "size_bytes", "mtime_ns", "file_digest", "pixel_digest",
    "phash", "width", "height", "mode", "problem",
)  # fmt: skip


Stamped = tuple[str, Stamp | None]  # path; that of a local file is looked up
DECODING = Lock()  # many objects are fetched at once, but a decoded image is up to 150 MB


def inspect_image(path: Path | str) -> dict[str, Any]:
    """Read one file, or object by its URL, and decode it in full.

    Returns:
        size_bytes: 0 where the file is missing.
        file_digest: SHA-256 of the bytes, hex; None where there are none.
        pixel_digest: SHA-256 of the upright RGB pixels and their shape, hex.
        phash: 64 hex characters, 256 bits, most significant first.
        width, height: pixels of the upright image; 0 where its header cannot be read.
        mode: Pillow's, before any conversion.
        problem: None, "missing", "zero-byte", "unreadable" (not an image of FORMATS, or one of
            more than MAX_PIXELS) or "truncated" (the header reads, the pixels do not all decode).
    """
    facts: dict[str, Any] = dict.fromkeys(COLUMNS[3:])
    facts |= {"size_bytes": 0, "width": 0, "height": 0}
    try:
        content = read_image(path)
    except FileNotFoundError:
        return facts | {"problem": "missing"}
    except OSError:
        return facts | {"problem": "unreadable"}
    if not content:
        return facts | {"problem": "zero-byte"}
    facts |= {"size_bytes": len(content), "file_digest": hashlib.sha256(content).hexdigest()}
    with DECODING:
        return facts | _decode(content)


def gather_facts(
    paths: Sequence[str],
    *,
    known: pd.DataFrame | None = None,
    stamps: Mapping[str, Stamp] = MappingProxyType({}),
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Inspect files, as Ray tasks where the caller has started Ray, else in this process.

    Args:
        paths: absolute, or URLs; on a cluster every node must see them.
        known: an earlier result; its row is taken over where path, size and time still agree.
        stamps: of URLs, as they were listed just now; no object is asked for its own.
        progress: told how many of the paths are done, each time that grows.

    Returns:
        One row a path, in order, with COLUMNS.

    Raises:
        ConsiliumError: an object store or Ray failed.
    """
    rows = _unchanged(paths, known, stamps)
    todo = [(path, stamps.get(path)) for path in dict.fromkeys(paths) if path not in rows]
    chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
    for inspected in _by_ray(chunks) if ray.is_initialized() else map(_inspect_chunk, chunks):
        rows |= {row["path"]: row for row in inspected}
        if progress is not None:
            progress(len(rows))
    return pd.DataFrame(
        {name: _column(name, [rows[path][name] for path in paths]) for name in COLUMNS}
    )


def _column(name: str, values: list[Any]) -> "pd.Series[Any]":
    if name in NUMBERS:
        return pd.Series(values, dtype=np.int64)
    return pd.Series([None if pd.isna(value) else value for value in values], dtype=object)


def _decode(content: bytes) -> dict[str, Any]:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            header = {"width": image.width, "height": image.height, "mode": image.mode}
    except DAMAGE:
        return {"problem": "unreadable"}
    if image.width * image.height > MAX_PIXELS:
        return header | {"problem": "unreadable"}
    try:
        pixels = decode(content)
    except DamagedImageError:
        return header | {"problem": "truncated"}
    digest = hashlib.sha256(repr(pixels.size).encode())
    digest.update(pixels.tobytes())
    return {
        "width": pixels.width,
        "height": pixels.height,
        "mode": image.mode,
        "pixel_digest": digest.hexdigest(),
        "phash": str(imagehash.phash(pixels, hash_size=HASH_SIDE)),
    }


def _unchanged(
    paths: Sequence[str], known: pd.DataFrame | None, stamps: Mapping[str, Stamp]
) -> dict[str, dict[str, Any]]:
    if known is None or known.empty:
        return {}
    rows = {
        str(row["path"]): {str(name): row[name] for name in COLUMNS}
        for row in known.to_dict("records")
    }
    return {
        path: rows[path]
        for path in dict.fromkeys(paths)
        if path in rows
        and (stamps.get(path) or _stamp(path)) == (rows[path]["size_bytes"], rows[path]["mtime_ns"])
    }


def _stamp(path: str) -> Stamp | None:
    """Of a local file; that of an object comes by its listing alone."""
    if is_url(path):
        return None
    try:
        status = Path(path).stat()
    except OSError:
        return ABSENT
    return status.st_size, status.st_mtime_ns


def _inspect_chunk(stamped: Sequence[Stamped]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(readers([path for path, _ in stamped], threads=1)) as pool:
        return list(pool.map(_inspect, stamped))


def _inspect(stamped: Stamped) -> dict[str, Any]:
    path, stamp = stamped
    if is_url(path) and stamp == ABSENT:
        facts: dict[str, Any] = dict.fromkeys(COLUMNS)
        return facts | dict.fromkeys(NUMBERS, 0) | {"path": path, "problem": "missing"}
    # The stamp first: a file that changes meanwhile is then inspected again next time.
    stamp = stamp or _stamp(path) or ABSENT
    return {"path": path, "mtime_ns": stamp[1]} | inspect_image(path)


def _by_ray(chunks: list[list[Stamped]]) -> Iterator[list[dict[str, Any]]]:
    task = ray.remote(_inspect_chunk)
    pending = [task.remote(chunk) for chunk in chunks]
    while pending:
        done, pending = ray.wait(pending)
        try:
            found: list[list[dict[str, Any]]] = ray.get(done)
        except RayError as error:
            raise _explained(error) from None
        yield from found


def _explained(error: RayError) -> Exception:
    """What a task stumbled over, in one line; a fault of the code's own stays whole."""
    if isinstance(error, RayTaskError):
        return error.cause if isinstance(error.cause, ConsiliumError) else error
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return StudyError(f"reading the images: {reason}; give the same command again")
