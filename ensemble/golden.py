"""Golden inputs: images with the probabilities that a loaded bundle must give for them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from ensemble.runtime import Runtime
from search.data.synthetic import draw_lesion
from search.data.transforms import decode
from search.errors import BundleError

PROBS = "probs.json"  # file: calibrated probabilities
TOLERANCE = 1e-4  # another engine or processor may round differently


def write_golden(runtime: Runtime, folder: Path, *, count: int) -> None:
    """Draw synthetic lesions, no patient's image, and note what the bundle says of them."""
    target = folder / "golden"
    target.mkdir()
    expected = {}
    for index in range(count):
        rng = np.random.default_rng(index)
        pixels = draw_lesion(rng, malignant=index % 2 == 1, size=224)
        name = f"{index}.png"
        Image.fromarray(pixels).save(target / name)
        expected[name] = runtime.predict([decode(target / name)]).probs[0].tolist()
    (target / PROBS).write_text(json.dumps(expected, indent=1) + "\n")


def check_golden(runtime: Runtime) -> float:
    """Score the golden images and compare.

    Returns:
        the largest difference of a probability.

    Raises:
        BundleError: it is above 1e-4.
    """
    folder = runtime.bundle.folder / "golden"
    if not folder.is_dir():
        return 0.0
    worst = 0.0
    for name, probs in json.loads((folder / PROBS).read_text()).items():
        found = runtime.predict([decode(folder / name)]).probs[0]
        worst = max(worst, float(np.abs(found - np.asarray(probs)).max()))
    if not worst <= TOLERANCE:
        raise BundleError(
            f"{folder}: golden images come out {worst:.1e} off, the limit is {TOLERANCE:g}; "
            "check the versions of torch and onnxruntime"
        )
    return worst
