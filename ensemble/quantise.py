"""A member's graph with 8-bit weights and activations: smaller, on some processors quicker."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from search.atomic import replacing
from search.errors import BundleError

Pixels = NDArray[np.uint8]
FEWEST = 8  # images; fewer say too little of the activations' ranges
BATCH = 8
OPERATORS = ("Conv", "Gemm")


def quantise_onnx(source: Path, target: Path, *, pixels: Pixels) -> float:
    """Write a graph of `ensemble.export` in 8 bits, and measure what that changes.

    Static quantisation of convolutions and dense layers, weights by channel; the activations'
    ranges are the least and largest values on the given images.

    Args:
        source: the float graph.
        target: the 8-bit graph, written whole or not at all.
        pixels: (n >= 8, size, size, 3) uint8 images.

    Returns:
        The largest difference of a probability from the float graph on these images.

    Raises:
        ValueError: fewer images.
        BundleError: a probability of the 8-bit graph is not finite.
    """
    if len(pixels) < FEWEST:
        raise ValueError(f"quantising needs at least {FEWEST} images, there are {len(pixels)}")
    with replacing(target) as scratch:
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder, "prepared.onnx")
            # Merges normalisation into convolutions first; shapes are inferred by onnx itself.
            quant_pre_process(source, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                scratch,
                _Images(pixels),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        difference = float(np.abs(_probs(scratch, pixels) - _probs(source, pixels)).max())
        if not np.isfinite(difference):
            raise BundleError(
                f"{target.name}: in 8 bits this graph gives no numbers; set ensemble.int8 to false"
            )
    return difference


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """The images, a batch at a time, as the calibration asks for them."""

    def __init__(self, pixels: Pixels) -> None:
        self._batches = iter(_batches(pixels))

    def get_next(self) -> Mapping[str, Pixels] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"pixels": batch}


def _batches(pixels: Pixels) -> list[Pixels]:
    return [pixels[start : start + BATCH] for start in range(0, len(pixels), BATCH)]


def _probs(path: Path, pixels: Pixels) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate(
        [session.run(["probs"], {"pixels": batch})[0] for batch in _batches(pixels)]
    )
