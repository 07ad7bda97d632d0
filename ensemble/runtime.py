"""A bundle at work: images in, calibrated probabilities out. Evaluation and serving share it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from ensemble.bundle import Bundle
from ensemble.decision.prevalence import prevalence_of, shift_prevalence
from ensemble.manifest import Member, Network, Survivors
from ensemble.novelty import Reference, read_reference
from ensemble.pool import pool_probs
from ensemble.views import view_pixels
from search.data.transforms import prepare
from search.errors import BundleError

Engine = Literal["onnx", "int8", "torch"]
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Outputs = Callable[[Pixels], tuple[Floats, Floats]]  # pixels to probabilities and features
BATCH = 32


@dataclass(frozen=True)
class Scores:
    """What the members say of some images, before they are pooled.

    Attributes:
        member_probs: (n_members, n_images, n_classes); rows sum to 1.
        distances: from the training data, (n_images,); None where the bundle has no reference.
    """

    member_probs: Floats
    distances: Floats | None


@dataclass(frozen=True)
class Prediction:
    """Probabilities of some images.

    Attributes:
        probs: calibrated, (n_images, n_classes); rows sum to 1.
        member_probs: each member's own, (n_members, n_images, n_classes).
        novel: farther from the training data than the bundle's threshold, (n_images,); None where
            nothing was measured.
    """

    probs: NDArray[np.float64]
    member_probs: Floats
    novel: NDArray[np.bool_] | None = None


class Runtime:
    """All members of one bundle, loaded. Safe to call from several threads.

    Torch is imported for its engine alone: a replica on ONNX starts in a second and holds a
    quarter of the memory.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: Engine = "onnx",
        threads: int = 1,
        device: str = "cpu",
        tolerant: bool = False,
    ) -> None:
        """Load every network of every member.

        Args:
            engine: onnx; int8, where the bundle has it; or torch from the canonical weights.
            threads: of one inference.
            device: of torch: cpu or cuda.
            tolerant: a member that cannot be loaded is noted in `lost` instead of raised.

        Raises:
            BundleError: a network cannot be loaded; with `tolerant`, none of them can.
        """
        self.bundle = bundle
        self.lost: dict[str, str] = {}
        members = bundle.manifest.members
        self._weights = np.array([member.weight for member in members])
        self._networks: list[list[Outputs]] = []
        for member in members:
            try:
                loaded = [
                    _load(bundle, member, n, engine, threads, device) for n in member.networks
                ]
            except BundleError as error:
                if not tolerant:
                    raise
                self.lost[member.name], loaded = str(error), []
            self._networks.append(loaded)
        if len(self.lost) == len(members):
            raise BundleError(next(iter(self.lost.values())))
        self._reference = self._read_reference()

    def predict(self, images: Sequence[Image.Image]) -> Prediction:
        """Score decoded RGB images (see search.data.transforms.decode)."""
        return self.pooled(self.score([self.prepare(image) for image in images]))

    def prepare(self, image: Image.Image) -> list[Pixels]:
        """Pixels for each member; members with equal preprocessing share them."""
        done: dict[str, Pixels] = {}
        pixels = []
        for member in self.bundle.manifest.members:
            key = member.preprocessing.model_dump_json(
                include={"size", "grayscale", "colour_constancy"}
            )
            if key not in done:
                done[key] = prepare(image, member.preprocessing)
            pixels.append(done[key])
        return pixels

    def score(self, prepared: Sequence[Sequence[Pixels]]) -> Scores:
        """Ask every member about prepared images."""
        n_classes = len(self.bundle.manifest.classes)
        probs = np.zeros((len(self._networks), len(prepared), n_classes), np.float32)
        distances = None if self._reference is None else np.zeros(len(prepared), np.float32)
        for start in range(0, len(prepared), BATCH):
            batch = slice(start, start + BATCH)
            for i in range(len(self._networks)):
                pixels = np.stack([one[i] for one in prepared[batch]])
                probs[i, batch], near = self.ask(i, pixels)
                if distances is not None and near is not None:
                    distances[batch] = near
        return Scores(probs, distances)

    def pooled(self, scores: Scores) -> Prediction:
        """Pool members' probabilities and calibrate the pool.

        Raises:
            BundleError: a member gave what is no number; a decision on it would be "negative".
        """
        manifest = self.bundle.manifest
        if not np.isfinite(scores.member_probs).all():
            raise BundleError(
                f"{self.bundle.folder}: a member gives NaN; check the versions of torch and "
                "onnxruntime, or build the bundle again"
            )
        probs = manifest.calibrator.apply(pool_probs(scores.member_probs, self._weights))
        novelty, distances = manifest.out_of_distribution, scores.distances
        novel = None if novelty is None or distances is None else distances > novelty.threshold
        return Prediction(probs, scores.member_probs, novel)

    def network_outputs(self, member: int, network: int, pixels: Pixels) -> tuple[Floats, Floats]:
        """One network's probabilities (n, n_classes) and features (n, d) of (n, s, s, 3) pixels."""
        parts = [
            self._networks[member][network](pixels[start : start + BATCH])
            for start in range(0, len(pixels), BATCH)
        ]
        return np.concatenate([p for p, _ in parts]), np.concatenate([f for _, f in parts])

    def ask(self, member: int, pixels: Pixels) -> tuple[Floats, Floats | None]:
        """What one member says of some images.

        Args:
            member: index in the manifest; not one that is lost.
            pixels: as `prepare` gives them for this member, (n, size, size, 3).

        Returns:
            Probabilities, (n, n_classes), the mean over its networks and views; and the distances
            from the training data, (n,), where this member is the one that they are measured by.
        """
        manifest = self.bundle.manifest
        views = view_pixels(pixels, manifest.test_time_augmentation)
        novelty, distances = manifest.out_of_distribution, None
        total = np.zeros((len(pixels), len(manifest.classes)))
        name = manifest.members[member].name
        for j, outputs in enumerate(self._networks[member]):
            watched = novelty is not None and (name, j) == (novelty.member, novelty.network)
            for v, view in enumerate(views):
                probs, features = outputs(view)
                total += probs
                if v == 0 and watched and self._reference is not None:
                    distances = self._reference.distances(features)
        mean = total / (len(views) * len(self._networks[member]))
        return mean.astype(np.float32), distances

    def _read_reference(self) -> Reference | None:
        novelty = self.bundle.manifest.out_of_distribution
        if novelty is None:
            return None
        return read_reference(self.bundle.folder / novelty.reference_file, k=novelty.k)


def at_prevalence(
    bundle: Bundle, probs: NDArray[np.float64], wanted: Mapping[str, float]
) -> NDArray[np.float64]:
    """Calibrated probabilities where classes are as frequent as wanted, (n_images, n_classes).

    Decisions stay those of the unshifted probability: a threshold's sensitivity and specificity
    do not depend on how frequent the classes are.

    Raises:
        ConfigError: an unknown class, or shares that are none.
    """
    manifest = bundle.manifest
    target = prevalence_of(manifest.classes, manifest.prevalence, wanted)
    stored = np.array([manifest.prevalence[name] for name in manifest.classes])
    return shift_prevalence(probs, stored, target)


def survivors_of(bundle: Bundle, names: Sequence[str]) -> Survivors | None:
    """What holds when only these members are left; None where nothing was fitted for them."""
    wanted = set(names)
    return next((s for s in bundle.manifest.survivors if set(s.members) == wanted), None)


def _load(
    bundle: Bundle, member: Member, network: Network, engine: Engine, threads: int, device: str
) -> Outputs:
    if engine == "torch":
        from ensemble.torch_engine import load_torch

        return load_torch(bundle, member, network, threads=threads, device=device)
    if engine == "int8" and network.int8_file is None:
        raise BundleError(f"{bundle.folder}: no 8-bit members; set ensemble.int8, build it again")
    file = network.int8_file if engine == "int8" else network.onnx_file
    return _load_onnx(bundle, str(file), threads)


def _load_onnx(bundle: Bundle, file: str, threads: int) -> Outputs:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = bundle.folder / file
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors share no base class
        raise BundleError(f"{path}: cannot be loaded; build the bundle again") from error

    def outputs(pixels: Pixels) -> tuple[Floats, Floats]:
        probs, features = session.run(["probs", "features"], {"pixels": pixels})
        return probs, features

    return outputs
