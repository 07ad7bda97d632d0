"""A bundle at work: images in, calibrated probabilities out. Evaluation and serving share it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from ensemble.bundle import Bundle, Member
from ensemble.pool import pool_probs
from search.data.transforms import prepare
from search.errors import BundleError
from search.training.backbones import Classifier, restore_classifier

Engine = Literal["onnx", "torch"]
Score = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """Probabilities of some images.

    Attributes:
        probs: calibrated, (n_images, n_classes); rows sum to 1.
        member_probs: each member's own, (n_members, n_images, n_classes).
    """

    probs: NDArray[np.float64]
    member_probs: NDArray[np.float32]


class Runtime:
    """All members of one bundle, loaded. Safe to call from several threads."""

    def __init__(self, bundle: Bundle, *, engine: Engine = "onnx", threads: int = 1) -> None:
        """Load every member.

        Args:
            engine: onnx, or torch from the canonical weights.
            threads: of one inference.

        Raises:
            BundleError: a member cannot be loaded.
        """
        self.bundle = bundle
        members = bundle.manifest.members
        self._weights = np.array([member.weight for member in members])
        load = _load_onnx if engine == "onnx" else _load_torch
        self._scores: list[Score] = [load(bundle, member, threads) for member in members]

    def predict(self, images: Sequence[Image.Image]) -> Prediction:
        """Score decoded RGB images (see search.data.transforms.decode)."""
        return self.pooled(self.member_probs([self.prepare(image) for image in images]))

    def prepare(self, image: Image.Image) -> list[NDArray[np.uint8]]:
        """Pixels for each member; members with equal preprocessing share them."""
        done: dict[str, NDArray[np.uint8]] = {}
        pixels = []
        for member in self.bundle.manifest.members:
            key = member.preprocessing.model_dump_json(
                include={"size", "grayscale", "colour_constancy"}
            )
            if key not in done:
                done[key] = prepare(image, member.preprocessing)
            pixels.append(done[key])
        return pixels

    def member_probs(self, prepared: Sequence[Sequence[NDArray[np.uint8]]]) -> NDArray[np.float32]:
        """Each member's probabilities, (n_members, n_images, n_classes), of prepared images."""
        n_classes = len(self.bundle.manifest.classes)
        if not prepared:
            return np.zeros((len(self._scores), 0, n_classes), np.float32)
        return np.stack(
            [
                np.concatenate(
                    [
                        score(np.stack([pixels[i] for pixels in prepared[start : start + BATCH]]))
                        for start in range(0, len(prepared), BATCH)
                    ]
                )
                for i, score in enumerate(self._scores)
            ]
        )

    def pooled(self, member_probs: NDArray[np.float32]) -> Prediction:
        """Pool members' probabilities and calibrate the pool."""
        pooled = pool_probs(member_probs, self._weights)
        return Prediction(self.bundle.manifest.calibrator.apply(pooled), member_probs)


def load_classifier(bundle: Bundle, member: Member) -> Classifier:
    """A member as a torch module in evaluation mode, from its safetensors."""
    state = load_file(bundle.folder / member.weights_file)
    return restore_classifier(member.params, len(bundle.manifest.classes), state)


def _load_torch(bundle: Bundle, member: Member, threads: int) -> Score:
    torch.set_num_threads(threads)
    classifier = load_classifier(bundle, member)

    def score(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            probs: NDArray[np.float32] = torch.softmax(
                classifier(torch.from_numpy(pixels)), dim=1
            ).numpy()
        return probs

    return score


def _load_onnx(bundle: Bundle, member: Member, threads: int) -> Score:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = bundle.folder / member.onnx_file
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base class
        raise BundleError(f"{path}: cannot be loaded; build the bundle again") from error

    def score(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        probs: NDArray[np.float32] = session.run(["probs"], {"pixels": pixels})[0]
        return probs

    return score
