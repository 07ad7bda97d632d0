"""Golden inputs: images with the probabilities that a loaded bundle must give for them."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ensemble.runtime import Engine, Runtime
from search.data.synthetic import draw_lesion
from search.data.transforms import decode
from search.errors import BundleError

PROBS = "probs.json"  # engine: file: calibrated probabilities
TOLERANCE = {"torch": 1e-5, "onnx": 1e-4, "int8": 1e-2}  # another processor may round differently


def draw_golden(folder: Path, *, count: int) -> None:
    """Draw synthetic lesions, no patient's image."""
    target = folder / "golden"
    target.mkdir()
    for index in range(count):
        rng = np.random.default_rng(index)
        pixels = draw_lesion(rng, malignant=index % 2 == 1, size=224)
        Image.fromarray(pixels).save(target / f"{index}.png")


def write_expected(folder: Path, runtimes: dict[Engine, Runtime]) -> None:
    """Note what the bundle says of the golden images, by each engine."""
    target = folder / "golden"
    images = {path.name: decode(path) for path in sorted(target.glob("*.png"))}
    expected = {
        engine: {n: runtime.predict([image]).probs[0].tolist() for n, image in images.items()}
        for engine, runtime in runtimes.items()
    }
    (target / PROBS).write_text(
        json.dumps(expected, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )


def check_golden(runtime: Runtime, engine: Engine = "onnx") -> float:
    """Score the golden images and compare with what the same engine said at build.

    Returns:
        the largest difference of a probability.

    Raises:
        BundleError: it is above 1e-5 with torch, 1e-4 with ONNX.
    """
    folder = runtime.bundle.folder / "golden"
    expected = _expected(folder / PROBS, engine)
    worst = 0.0
    for name, probs in expected.items():
        found = runtime.predict([decode(folder / Path(name).name)]).probs[0]
        if found.shape != probs.shape:
            raise BundleError(f"{folder / PROBS}: of other classes; build the bundle again")
        worst = max(worst, float(np.abs(found - probs).max()))
    if not worst <= TOLERANCE[engine]:
        raise BundleError(
            f"{folder}: golden images come out {worst:.1e} off, the limit is "
            f"{TOLERANCE[engine]:g}; check the versions of torch and onnxruntime"
        )
    return worst


def _expected(path: Path, engine: Engine) -> dict[str, NDArray[np.float64]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))[engine]
        found = {str(name): np.asarray(probs, np.float64) for name, probs in rows.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{path}: holds no golden probabilities by {engine}; build the bundle again"
        ) from error
    if not found or not all(np.isfinite(probs).all() for probs in found.values()):
        raise BundleError(f"{path}: golden probabilities are missing; build the bundle again")
    return found
