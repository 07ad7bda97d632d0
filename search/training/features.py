"""Features of a frozen trunk as one float32 memory map, cached beside the images they are of."""

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from search.data.cache import ImageCache, build_once, create_map
from search.data.room import open_map
from search.params import Augmentation, Params
from search.training.backbones import Classifier
from search.training.memory import outputs

FORMAT = 1
FILE = "features.npy"


def is_headonly(params: Params) -> bool:
    """Whether a trial trains its head alone, on images that are the same in every epoch."""
    still = params.augment == Augmentation() and not params.mixup and not params.cutmix
    return params.unfreeze == 0 and still


def cached_features(
    cache: ImageCache, params: Params, classifier: Classifier
) -> NDArray[np.float32]:
    """Open the features of every cached image; compute and write them first where they are not.

    Two processes that ask at once compute them once. Another trunk has another map: the key holds
    all its weights, so that a random one depends on its seed.

    Args:
        params: name the backbone.
        classifier: is left in evaluation mode; its trunk is run on the device that it is on.

    Returns:
        (n_contents, d), memory-mapped read-only; a row for each of `cache.pixels`.

    Raises:
        CacheError: the disk is full or cannot be written, or cache_gb is too low.
        TrainingError: a single image does not fit on the GPU.
    """
    classifier.eval()
    target = cache.folder.parent / _key(cache, params, classifier)
    return build_once(
        target,
        lambda scratch: _build(cache, classifier, scratch / FILE),
        lambda whole: open_map(whole / FILE, np.float32),
    )


def _key(cache: ImageCache, params: Params, classifier: Classifier) -> str:
    digest = hashlib.sha256()
    for name, value in classifier.trunk.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().numpy().tobytes())
    of = [cache.folder.name, params.backbone, classifier.preprocessing.model_dump_json()]
    text = json.dumps([FORMAT, *of, digest.hexdigest()])
    return f"{cache.folder.name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def _build(cache: ImageCache, classifier: Classifier, file: Path) -> None:
    def network(images: Tensor) -> Tensor:
        return classifier.features(classifier.normalise(images))

    pixels = cache.pixels
    rows, device = np.arange(len(pixels)), str(next(classifier.parameters()).device)
    width = next(outputs(network, pixels, rows[:1], device=device)).shape[1]
    features = create_map(file, (len(pixels), width), np.float32, limit=cache.limit)
    start = 0
    for batch in outputs(network, pixels, rows, device=device):
        features[start : start + len(batch)] = batch.cpu().numpy()
        start += len(batch)
    features.flush()
