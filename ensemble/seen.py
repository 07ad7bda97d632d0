"""Which images a bundle was made from: an evaluation on them would flatter it."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from search.data.images import read_image, readers
from search.errors import BundleError
from search.tables import write_tensors

FILE = "seen.safetensors"
BYTES = 8  # of a SHA-256: among a million images two differ in them all but surely


def write_seen(folder: Path, digests: Iterable[str]) -> None:
    """Note the files that members were trained, chosen, calibrated or certified on.

    Args:
        digests: SHA-256 of each file, in hexadecimal digits.
    """
    heads = sorted({int(digest[: 2 * BYTES], 16) for digest in digests})
    numbers = np.array(heads, np.uint64).view(np.int64)
    write_tensors(folder / FILE, {"heads": torch.from_numpy(numbers)})


def seen_among(folder: Path, paths: Sequence[str | Path]) -> NDArray[np.bool_]:
    """Which files a bundle was made from, (n_paths,); none that cannot be read.

    Args:
        paths: local ones, or URLs, which are fetched many at once.

    Raises:
        BundleError: the bundle's list is damaged.
    """
    try:
        numbers = load_file(folder / FILE)["heads"].numpy()
    except Exception as error:  # safetensors' own errors share no base class
        raise BundleError(f"{folder / FILE}: cannot be read; build the bundle again") from error
    known = set(numbers.view(np.uint64).tolist())
    with ThreadPoolExecutor(readers(paths, threads=1)) as pool:
        return np.array([head in known for head in pool.map(_head, paths)], np.bool_)


def _head(path: str | Path) -> int | None:
    try:
        digest = hashlib.sha256(read_image(path)).hexdigest()
    except OSError:
        return None
    return int(digest[: 2 * BYTES], 16)
