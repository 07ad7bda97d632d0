"""The part of a study's images that one of several workers needs: its map holds just these."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.config import ExperimentConfig
from search.data.cache import ImageCache, cache_rows
from search.data.splits import fold_rows
from search.data.transforms import Preprocessing
from search.errors import TrainingError
from search.training.batches import ELSEWHERE
from search.training.ranks import Ranks


def shard_places(images: pd.DataFrame, fold: int, ranks: Ranks, *, seed: int) -> NDArray[np.int64]:
    """Places in the table of the images that a worker trains on, or predicts in validation.

    Args:
        images: of all folds, with their labels.

    Raises:
        TrainingError: there is not an image for every worker.
    """
    train, val = fold_rows(images, fold)
    if len(train) < ranks.world:
        raise TrainingError(
            f"{len(train)} images cannot be divided among {ranks.world} workers; set "
            "resources.shard to false"
        )
    mine = ranks.divide(images["label"].to_numpy(np.int64)[train], seed=seed)
    places: NDArray[np.int64] = np.union1d(train[mine], ranks.spread(val))
    return places


def open_shard(
    config: ExperimentConfig,
    images: pd.DataFrame,
    preprocessing: Preprocessing,
    *,
    fold: int,
    ranks: Ranks,
    threads: int = 1,
) -> tuple[ImageCache, NDArray[np.int64]]:
    """The decoded images that a worker needs, and for each of all images its row of them.

    Returns:
        the map, and (n_images,) rows; ELSEWHERE for images that other workers have.
    """
    places = shard_places(images, fold, ranks, seed=config.seed)
    cache, own = cache_rows(
        images.iloc[places],
        preprocessing,
        config.cache_folder,
        threads=threads,
        limit=config.cache_bytes,
    )
    rows = np.full(len(images), ELSEWHERE)
    rows[places] = own
    return cache, rows
