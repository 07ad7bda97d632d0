"""The out-of-distribution reference of a bundle: built on training images, measured on others."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from ensemble.cascade import first_asked
from ensemble.config import NoveltyConfig
from ensemble.manifest import Novelty
from ensemble.not_lesions import KINDS, not_lesions, read_folder
from ensemble.novelty import build_reference, measure, threshold_for, write_reference
from ensemble.runtime import Runtime
from search.data.images import open_image

FILE = "novelty.safetensors"
REFERENCE = 2000  # training images
K = 10
OF_EACH_KIND = 40
Floats = NDArray[np.float32]


def build_novelty(
    runtime: Runtime,
    training: pd.DataFrame,
    held_back: Sequence[str | Path],
    config: NoveltyConfig,
    folder: Path,
    *,
    seed: int = 0,
) -> Novelty:
    """Write the reference, set its threshold on held-back images, measure it on non-lesions.

    The features are those of the first network of the member that costs least.

    Args:
        runtime: of the members.
        training: images that the members were trained on.
        held_back: files of readable images that they were not trained on.
        folder: of the bundle that is being built.
    """
    members = runtime.bundle.manifest.members
    cheapest = members.index(first_asked(members))
    rows = training.sample(min(REFERENCE, len(training)), random_state=seed)
    features = _features(runtime, cheapest, (open_image(path) for path in rows["path"]))
    reference = build_reference(features, limit=REFERENCE, k=K, seed=seed)
    write_reference(folder / FILE, reference)

    def distances(images: Iterable[Image.Image]) -> Floats:
        found: Floats = reference.distances(_features(runtime, cheapest, images))
        return found

    inside = distances(open_image(path) for path in held_back)
    threshold = threshold_for(inside, config.flagged)
    others: dict[str, Floats] = {
        kind: distances(not_lesions(kind, OF_EACH_KIND, seed=seed)) for kind in KINDS
    }
    if config.images is not None:
        others["own folder"] = distances(read_folder(config.images))
    return Novelty(
        member=members[cheapest].name,
        network=0,
        reference_file=FILE,
        k=reference.k,
        threshold=threshold,
        flagged_held_back=float((inside > threshold).mean()),
        measured=measure(others, inside, threshold),
    )


def _features(runtime: Runtime, member: int, images: Iterable[Image.Image]) -> Floats:
    # Only the member's small pixels stay: thousands of decoded photographs are gigabytes.
    pixels = np.stack([runtime.prepare(image)[member] for image in images])
    _, features = runtime.network_outputs(member, 0, pixels)
    return features
