"""What a cascade and 8-bit members gain, and what they lose."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypedDict, Unpack

import httpx
import numpy as np
from numpy.typing import NDArray

from ensemble.bundle import load_bundle
from ensemble.runtime import Engine, Runtime
from search.data.transforms import decode
from search.training.metrics import auroc
from tests.benchmarks.serve.contenders import ours, serving
from tests.benchmarks.serve.limit import Limit
from tests.benchmarks.serve.trained import Trained
from tests.benchmarks.serve.windows import CORES, measure

CLIENTS = 32
WAITING = ("--waiting", "512")


class Times(TypedDict):
    """How long a window is, and how often it is done."""

    seconds: float
    repeats: int


def compare_cascade(
    trained: Trained, *, log: Path, **times: Unpack[Times]
) -> dict[str, Any] | None:
    """The service with the bundle's cascade and without, each against the same limit.

    Returns:
        cascade_ratio: of images a second; auroc_difference: with it less without, on the labelled
        images by HTTP. None where the bundle has no cascade.
    """
    manifest = load_bundle(trained.bundle).manifest
    if manifest.cascade is None or manifest.positive is None:
        return None
    found: dict[str, Any] = {}
    with Limit.beside(trained.bundle, trained.images, log=log) as limit:
        for name, options in (("whole", ("--whole",)), ("cascade", ())):
            way = ours("haproxy", trained.bundle, *WAITING, *options)
            with serving(way, trained.images, log=log) as server:
                scores = _ask(server.url, trained.files, manifest.positive)
                cell = measure(server.url, trained.images, limit, clients=CLIENTS, **times)
            found[f"{name}_img_s"] = cell.images_s
            found[f"{name}_fraction"] = cell.fraction
            found[f"{name}_auroc"] = _auroc(scores, trained.labels)
            found[f"{name}_errors"] = cell.errors
    return found | {
        "cascade_ratio": found["cascade_fraction"] / found["whole_fraction"],
        "auroc_difference": found["cascade_auroc"] - found["whole_auroc"],
    }


def compare_int8(
    bundle: Path, images: Path, trained: Trained, *, log: Path, **times: Unpack[Times]
) -> dict[str, Any]:
    """8-bit members beside float ones, without HTTP: images a second, and what AUROC loses.

    Args:
        bundle: whose speed is measured.
        trained: what the loss is measured on; unknown where its bundle has no 8-bit members.
    """
    with (
        Limit.beside(bundle, images, log=log) as full,
        Limit.beside(bundle, images, log=log, engine="int8") as small,
    ):
        ratios, half = [], times["seconds"] / 2
        for _ in range(max(times["repeats"], 2)):
            before = full.window(CORES, half).images_s
            own = small.window(CORES, half).images_s
            ratios.append(2 * own / (before + full.window(CORES, half).images_s))
    lost = None
    if _has_int8(trained.bundle):
        engines: tuple[Engine, ...] = ("onnx", "int8")
        whole, small_ones = (_auroc(_score(trained, e), trained.labels) for e in engines)
        lost = whole - small_ones
    return {"int8_gain": median(ratios), "int8_auroc_loss": lost}


def _has_int8(folder: Path) -> bool:
    members = load_bundle(folder).manifest.members
    return all(network.int8_file for member in members for network in member.networks)


def _score(trained: Trained, engine: Engine) -> NDArray[np.float64]:
    """Probabilities of the positive class, (n_images,), in this process."""
    bundle = load_bundle(trained.bundle)
    runtime = Runtime(bundle, engine=engine)
    probs = [runtime.predict([decode(file)]).probs[0] for file in trained.files]
    return np.stack(probs)[:, bundle.positive_index]


def _ask(url: str, files: Sequence[Path], positive: str) -> NDArray[np.float64]:
    """The same by HTTP."""
    found = []
    with httpx.Client(trust_env=False, headers={"content-type": "image/jpeg"}) as client:
        for file in files:
            answer = client.post(url, content=file.read_bytes()).raise_for_status().json()
            found.append(answer["predictions"][0]["probabilities"][positive])
    return np.array(found)


def _auroc(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return auroc(np.stack([1 - scores, scores], axis=1), labels, positive=1)
