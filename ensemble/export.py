"""Members to ONNX, built from their safetensors and checked against torch."""

import math
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from search.atomic import replacing
from search.errors import BundleError
from search.training.backbones import Classifier

PARITY_LIMIT = 1e-4  # on probabilities
OUTPUTS = ["probs", "features"]


class _Outputs(nn.Module):
    """What the graph holds: a classifier that ends in probabilities, and what its head sees."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.classifier.features(self.classifier.normalise(pixels))
        return torch.softmax(self.classifier.head(features), dim=1), features


def export_onnx(classifier: Classifier, path: Path, *, pixels: NDArray[np.uint8]) -> float:
    """Write the graph and measure how far it is from torch.

    Its outputs are probs, (n, n_classes), and features, (n, d), what the head sees.

    Tracing comes first: it takes 0.3 s for a MobileNetV2, torch's newer exporter 7 s, for graphs
    that are as quick. What tracing cannot export, or gets wrong, the newer one does.

    Args:
        classifier: in evaluation mode, on the CPU.
        path: of the .onnx file.
        pixels: (n >= 2, size, size, 3) uint8 images to compare on.

    Returns:
        The largest difference of a probability.

    Raises:
        BundleError: if it is above 1e-4.
    """
    network = _Outputs(classifier).eval()
    given = torch.from_numpy(np.ascontiguousarray(pixels))
    with replacing(path) as scratch:
        parity = _traced(network, given, scratch)
        if parity > PARITY_LIMIT:
            parity = _captured(network, given, scratch)
        if parity > PARITY_LIMIT:
            raise BundleError(
                f"{path.name}: ONNX differs from torch by {parity:.1e}, the limit is "
                f"{PARITY_LIMIT:g}; leave this backbone out of the ensemble"
            )
    return parity


def _traced(network: nn.Module, pixels: torch.Tensor, path: Path) -> float:
    """Export by TorchScript; returns the parity, infinite where it cannot."""
    axes = {name: {0: "n"} for name in ("pixels", *OUTPUTS)}
    try:
        with _without_stdout():
            _export(network, pixels, path, dynamo=False, dynamic_axes=axes)
        return _parity(network, pixels, path)
    except Exception:  # of any kind: an operator it lacks, a torch that has dropped it
        return math.inf


def _captured(network: nn.Module, pixels: torch.Tensor, path: Path) -> float:
    """Export by torch.export; returns the parity."""
    shapes = {"pixels": {0: torch.export.Dim("n", min=1)}}
    _export(network, pixels, path, dynamo=True, dynamic_shapes=shapes, external_data=False)
    return _parity(network, pixels, path)


def _export(network: nn.Module, pixels: torch.Tensor, path: Path, **options: Any) -> None:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        torch.onnx.export(
            network,
            (pixels[:2],),
            path,
            input_names=["pixels"],
            output_names=OUTPUTS,
            verbose=False,
            **options,
        )


def _parity(network: nn.Module, pixels: torch.Tensor, path: Path) -> float:
    """Largest difference of a probability, of all images at once and of the first alone.

    Two batch sizes, because a trace may have taken the one it saw for a constant.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network(pixels)[0].numpy()
    several = session.run(["probs"], {"pixels": pixels.numpy()})[0]
    alone = session.run(["probs"], {"pixels": pixels[:1].numpy()})[0]
    return max(_worst(several, expected), _worst(alone, expected[:1]))


def _worst(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if found.shape != expected.shape:
        return math.inf
    worst = float(np.abs(found - expected).max())
    return math.inf if math.isnan(worst) else worst


@contextmanager
def _without_stdout() -> Iterator[None]:
    """Drop what is written to descriptor 1: where it fails, torch prints whole graphs from C++."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)
