"""What a classifier costs to run, and by how much it breaks the constraints."""

import math
import statistics
from collections.abc import Mapping
from time import perf_counter

import torch

from search.params import Params
from search.training.backbones import Classifier

WARM_UPS = 2
PASSES = 5  # at least
SECONDS = 0.3  # then no new pass begins


def measure_costs(classifier: Classifier, params: Params) -> dict[str, float]:
    """Size and speed of a classifier, which comes back on its device and in its mode.

    The latency is measured beside whatever else the machine does: on a busy one it is higher.

    Returns:
        params_m: parameters in millions, frozen ones too. latency_ms: median wall time of one
        image from uint8 pixels to logits, normalisation included, on one CPU thread.
    """
    device = next(classifier.parameters()).device
    training, threads = classifier.training, torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        seconds = _pass_seconds(classifier.cpu().eval(), params.image_size)
    finally:
        torch.set_num_threads(threads)
        classifier.to(device).train(training)
    n_params = sum(parameter.numel() for parameter in classifier.parameters())
    return {"params_m": n_params / 1e6, "latency_ms": 1e3 * statistics.median(seconds)}


def violations(
    constraints: Mapping[str, float], values: Mapping[str, float | None]
) -> dict[str, float]:
    """By how much each upper bound is exceeded; only those that are.

    A value that is missing or not finite exceeds its bound by the bound itself, as twice of it
    would: a number that JSON can hold and that no feasible trial has.
    """
    excess = {name: _excess(values.get(name), bound) for name, bound in constraints.items()}
    return {name: by for name, by in excess.items() if by > 0}


def _excess(value: float | None, bound: float) -> float:
    return bound if value is None or not math.isfinite(value) else value - bound


@torch.inference_mode()
def _pass_seconds(classifier: Classifier, size: int) -> list[float]:
    """Wall time of each pass of one image, warmed up."""
    image = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    for _ in range(WARM_UPS):
        classifier(image)
    found: list[float] = []
    while len(found) < PASSES or sum(found) < SECONDS:
        start = perf_counter()
        classifier(image)
        found.append(perf_counter() - start)
    return found
