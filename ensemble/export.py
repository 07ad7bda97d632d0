"""Members to ONNX, built from their safetensors and checked against torch."""

import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from search.errors import BundleError
from search.training.backbones import Classifier

PARITY_LIMIT = 1e-4  # on probabilities


class _Probabilities(nn.Module):
    """A classifier that ends in probabilities: what the graph holds."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.classifier(pixels), dim=1)


def export_onnx(classifier: Classifier, path: Path, *, pixels: NDArray[np.uint8]) -> float:
    """Write the graph and measure how far it is from torch.

    Args:
        classifier: in evaluation mode, on the CPU.
        path: of the .onnx file.
        pixels: (n >= 2, size, size, 3) uint8 images to compare on.

    Returns:
        The largest difference of a probability.

    Raises:
        BundleError: if it is above 1e-4.
    """
    wrapped = _Probabilities(classifier).eval()
    given = torch.from_numpy(np.ascontiguousarray(pixels))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            wrapped,
            (given[:2],),
            path,
            input_names=["pixels"],
            output_names=["probs"],
            dynamic_shapes={"pixels": {0: torch.export.Dim("n", min=1)}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        expected = wrapped(given).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(["probs"], {"pixels": given.numpy()})[0]
    parity = float(np.abs(found - expected).max())
    if parity > PARITY_LIMIT:
        raise BundleError(
            f"{path.name}: ONNX differs from torch by {parity:.1e}, the limit is {PARITY_LIMIT:g}; "
            "leave this backbone out of the ensemble"
        )
    return parity
