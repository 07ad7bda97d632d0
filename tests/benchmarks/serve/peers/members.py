"""Two ONNX members as anyone would ask them: Pillow, ONNX Runtime, the mean of probabilities."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

CLASSES = ("benign", "malignant")
SIDE = 224


class Members:
    """All graphs of a folder, a one-thread session each."""

    def __init__(self, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._sessions = [
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for path in sorted(folder.glob("*.onnx"))
            if not path.name.endswith(".int8.onnx")
        ]
        self.ask([np.zeros((SIDE, SIDE, 3), np.uint8)])

    def ask(self, images: Sequence[NDArray[np.uint8]]) -> list[dict[str, float]]:
        """Mean probabilities of each (224, 224, 3) image."""
        pixels = np.stack(images)
        probs = [session.run(["probs"], {"pixels": pixels})[0] for session in self._sessions]
        return [dict(zip(CLASSES, row.tolist(), strict=True)) for row in np.mean(probs, axis=0)]


def read(file: bytes) -> NDArray[np.uint8]:
    """Decode a file and squash it to 224 pixels a side."""
    image = Image.open(BytesIO(file)).convert("RGB")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
