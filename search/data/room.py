"""The room that a node's maps may take: which are in use, and which go when another needs theirs.

Whoever has a map open holds a shared lock on its file, which ends with the last array that looks
into it: the mapping keeps the file open. Only a map that can be locked exclusively is removed.
"""

import fcntl
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout

from search.errors import CacheError

# A map, one made of it (features), and what of both is still being built. Nothing else is touched.
NAME = re.compile(r"[0-9a-f]{24}(-[0-9a-f]{24})?(\.[0-9a-f]{8}\.tmp)?")
GIGA = 1e9
D = TypeVar("D", np.uint8, np.float32)


def open_map(file: Path, dtype: type[D]) -> "np.memmap[Any, np.dtype[D]]":
    """A map's array, read-only and without a copy; in use while any view of it is there."""
    with file.open("rb") as raw:
        fcntl.flock(raw, fcntl.LOCK_SH)
        np.lib.format.read_magic(raw)
        shape, _, _ = np.lib.format.read_array_header_1_0(raw)
        # The mapping has a duplicate of the descriptor, and with it the lock.
        return np.memmap(raw, dtype, "r", offset=raw.tell(), shape=shape)


def lock_of(place: Path) -> Path:
    """The lock file of who builds, opens or removes a map; `place` may be its scratch folder."""
    return place.with_name(f"{place.name.split('.')[0]}.lock")


def make_room(folder: Path, needed: int, limit: int) -> None:
    """Remove maps that nobody uses, those least recently opened first, until so much more fits.

    Where it would not fit even then, nothing is removed.

    Args:
        folder: of all maps of a node; one process at a time may be here.
        needed, limit: bytes.

    Raises:
        CacheError: the maps in use leave too little.
    """
    with ExitStack() as held:
        sizes = {place: _size(place) for place in _maps(folder)}
        excess = sum(sizes.values()) + needed - limit
        idle: list[Path] = []
        for place in sorted(sizes, key=_opened):
            if excess > 0 and held.enter_context(_unused(place)):
                idle.append(place)
                excess -= sizes[place]
        if excess > 0:
            used = sum(size for place, size in sizes.items() if place not in idle)
            raise CacheError(
                f"{folder}: a map of {needed / GIGA:.3g} GB does not fit, cache_gb is "
                f"{limit / GIGA:.3g} and maps in use take {used / GIGA:.3g} GB; raise cache_gb, or "
                "search smaller or fewer image sizes"
            )
        for place in idle:
            _remove(place)


def _maps(folder: Path) -> list[Path]:
    return [place for place in folder.iterdir() if NAME.fullmatch(place.name) and place.is_dir()]


def _size(place: Path) -> int:
    sizes = []
    for file in place.iterdir():
        try:
            sizes.append(file.stat().st_size)
        except FileNotFoundError:  # its builder gave up meanwhile
            continue
    return sum(sizes)


def _opened(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except FileNotFoundError:
        return 0.0


@contextmanager
def _unused(place: Path) -> Iterator[bool]:
    """Whether nobody builds a map or has it open; it stays so within."""
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(lock_of(place), timeout=0))
            for file in place.glob("*.npy"):
                raw = held.enter_context(file.open("rb"))
                fcntl.flock(raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (Timeout, BlockingIOError, FileNotFoundError):
            held.close()
            yield False
        else:
            yield True


def _remove(place: Path) -> None:
    """Under another name first: half a map must not be taken for a whole one."""
    scratch = place.with_name(f"{place.name.split('.')[0]}.{uuid.uuid4().hex[:8]}.tmp")
    place.rename(scratch)
    shutil.rmtree(scratch, ignore_errors=True)
