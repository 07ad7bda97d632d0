"""Which images a bundle was made from: an evaluation on them would flatter it."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

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


def seen_among(folder: Path, paths: Sequence[Path]) -> NDArray[np.bool_]:
    """Which files a bundle was made from, (n_paths,); none that cannot be read.

    Raises:
        BundleError: the bundle's list is damaged.
    """
    try:
        numbers = load_file(folder / FILE)["heads"].numpy()
    except Exception as error:  # safetensors' own errors share no base class
        raise BundleError(f"{folder / FILE}: cannot be read; build the bundle again") from error
    known = set(numbers.view(np.uint64).tolist())
    return np.array([_head(path) in known for path in paths], np.bool_)


def _head(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    return int(digest[: 2 * BYTES], 16)
