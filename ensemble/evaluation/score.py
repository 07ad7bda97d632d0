"""Labelled images through the runtime that serves them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ensemble.runtime import Runtime, Scores
from search.data.images import fetch_image, readers
from search.data.transforms import decode
from search.errors import DamagedImageError, DatasetError

Progress = Callable[[int, int], None]
Change = Callable[[Image.Image, int], Image.Image]  # an image and its index to another


@dataclass(frozen=True)
class Scored:
    """Images that could be read, and what the members say of them.

    Attributes:
        rows: their indices among those given, (n_read,).
        scores: of these.
        skipped: path and problem of those that could not be read.
    """

    rows: NDArray[np.int64]
    scores: Scores
    skipped: dict[str, str]


def score_images(
    runtime: Runtime,
    paths: Sequence[str | Path],
    *,
    threads: int = 1,
    change: Change | None = None,
    progress: Progress = lambda _done, _n: None,
) -> Scored:
    """Decode and score files; those that cannot be read are left out and named.

    Args:
        paths: local ones, or URLs, which are fetched many at once.
        threads: images decoded and scored side by side.
        change: what is done to an image after it was decoded.

    Raises:
        DatasetError: none of the images can be read.
        StudyError: an object store cannot be reached; that is not an image's fault.
    """
    skipped: dict[str, str] = {}
    scoring = BoundedSemaphore(threads)

    def score(index: int) -> Scores | None:
        name = str(paths[index])
        with ExitStack() as turn:
            try:
                source = fetch_image(paths[index])
                turn.enter_context(scoring)
                image = decode(source, name=name)
            except DamagedImageError as error:
                skipped[name] = str(error)
                return None
            changed = image if change is None else change(image, index)
            return runtime.score([runtime.prepare(changed)])

    found: list[tuple[int, Scores]] = []
    with ThreadPoolExecutor(readers(paths, threads)) as pool:
        for index, scores in enumerate(pool.map(score, range(len(paths)))):
            if scores is not None:
                found.append((index, scores))
            progress(index + 1, len(paths))
    if not found:
        raise DatasetError(f"none of {len(paths)} images can be read; the first is {paths[0]}")
    return Scored(np.array([i for i, _ in found]), _joined([s for _, s in found]), skipped)


def _joined(parts: Sequence[Scores]) -> Scores:
    distances = [part.distances for part in parts if part.distances is not None]
    probs = np.concatenate([part.member_probs for part in parts], axis=1)
    return Scores(probs, np.concatenate(distances) if distances else None)
