"""The bundle: the immutable folder that is served. No pickle, every file listed with its hash."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from ensemble.calibration.calibrators import Calibrator
from ensemble.config import Views
from ensemble.contents import sha256, verify_files
from ensemble.decision.points import Decision, OperatingPoint
from search.data.transforms import Preprocessing
from search.document import located
from search.errors import BundleError
from search.params import Config, Params

SCHEMA_VERSION = 2
MANIFEST = "bundle.json"
LARGEST_MANIFEST = 32 * 2**20  # bytes


class Network(Config):
    """One trained network of a member: of one fold, or refitted on all."""

    fold: int | None = Field(description="that it was not trained on; None: trained on all")
    weights_file: str = Field(description="safetensors, the canonical form")
    onnx_file: str = Field(description="built from it; uint8 pixels in, probs and features out")
    parity: float = Field(ge=0, description="largest difference of ONNX from torch at build")
    int8_file: str | None = Field(None, description="the same graph with 8-bit weights")
    int8_off: float | None = Field(None, description="its largest difference on held-back images")
    refit_seconds: float | None = Field(None, description="that training on all folds took")


class Member(Config):
    """A candidate that the ensemble asks; its networks' probabilities are averaged."""

    name: str
    trial: int
    recipe: str | None = None
    params: Params
    preprocessing: Preprocessing
    weight: float = Field(gt=0, le=1)
    networks: list[Network] = Field(min_length=1)
    params_m: float = Field(description="parameters of all its networks, in millions")
    latency_ms: float = Field(description="measured: one image, one CPU thread, all its networks")


class Survivors(Config):
    """What a service goes on with when only these members are left."""

    members: list[str]
    calibrator: Calibrator
    operating_points: list[OperatingPoint]


class Exit(Config):
    """Bounds at one operating point: outside of them the members asked so far decide."""

    point: str
    negative_below: float = Field(description="their calibrated probability is below: negative")
    positive_from: float = Field(description="it reaches this: positive")


class Stage(Config):
    """The members asked after one more was, and when that is enough."""

    members: list[str]
    exits: list[Exit]
    leaving: dict[str, float] = Field(description="share of held-back cases that stop here")


class Agreement(Config):
    """How often the cascade decides as the whole ensemble does, by operating point."""

    point: str
    disagreements: int
    n: int = Field(description="held-back cases, one image a group")
    at_most: float = Field(description="upper Clopper-Pearson bound of the share that disagrees")
    cost: float = Field(description="expected share of the whole ensemble's latency")


class Cascade(Config):
    """An order of members in which the later ones are asked only where it matters."""

    stages: list[Stage] = Field(description="all but the last, which is the whole ensemble")
    agreements: list[Agreement]
    confidence: float


class NovelKind(Config):
    """How well images of one kind, which are no lesions, are told."""

    kind: str
    n: int
    auroc: float = Field(description="of the distance, against held-back cases")
    flagged: float = Field(description="share beyond the threshold")


class Novelty(Config):
    """Distance to the k-th nearest training image in one network's features.

    Source: Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022.
    """

    member: str
    network: int = Field(description="index among the member's networks")
    reference_file: str = Field(description="safetensors: reference, (n, d) rows of length 1")
    k: int = Field(ge=1)
    threshold: float = Field(description="flagged where the distance is above")
    flagged_held_back: float = Field(description="share of held-back cases beyond the threshold")
    measured: list[NovelKind] = Field(description="on images that are not lesions")


class Manifest(Config):
    """bundle.json."""

    schema_version: int = SCHEMA_VERSION
    name: str
    version: str
    created: str
    classes: list[str]
    positive: str | None
    members: list[Member] = Field(min_length=1)
    test_time_augmentation: Views = "none"
    calibrator: Calibrator
    operating_points: list[OperatingPoint]
    survivors: list[Survivors] = Field(default=[], description="by subset of members that are left")
    cascade: Cascade | None = None
    prevalence: dict[str, float] = Field(
        description="share of each class where the calibrator was fitted"
    )
    out_of_distribution: Novelty | None = None
    seen_file: str | None = Field(None, description="the images that it was made from, hashed")
    gates: list[str] = Field(default=[], description="that failed and were overridden by --force")
    provenance: dict[str, Any]
    files: dict[str, str] = Field(description="SHA-256 of every file but this one")

    digest: str = Field("", description="SHA-256 of all else in this file, and so of the bundle")

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        names = [member.name for member in self.members]
        novelty = self.out_of_distribution
        rules = {
            "classes": len(set(self.classes)) == len(self.classes) > 1,
            "positive": self.positive in (None, *self.classes),
            "prevalence": not self.prevalence or list(self.prevalence) == self.classes,
            "members": len(set(names)) == len(names)
            and abs(sum(member.weight for member in self.members) - 1) < 1e-6,
            "out_of_distribution": novelty is None or novelty.member in names,
            "survivors": all(set(left.members) < set(names) for left in self.survivors),
        }
        for where, holds in rules.items():
            if not holds:
                raise located(ValueError(f"{where} does not fit the rest"), where)
        return self

    def sealed_text(self) -> str:
        """What bundle.json holds: all fields, and the digest of all others."""
        return _json(_with_digest(self.model_dump(mode="json")))


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk: verified if load_bundle gave it, else still being built."""

    folder: Path
    manifest: Manifest

    @property
    def positive_index(self) -> int | None:
        """Class index that operating points are about, or None."""
        manifest = self.manifest
        return None if manifest.positive is None else manifest.classes.index(manifest.positive)

    def operating_point(self, name: str | None = None) -> OperatingPoint | None:
        """The operating point of that name; the first where none is named.

        Raises:
            BundleError: there is none of that name.
        """
        points = {point.name: point for point in self.manifest.operating_points}
        if name is None:
            return next(iter(points.values()), None)
        if name not in points:
            known = ", ".join(points) or "none"
            raise BundleError(f"no operating point {name!r}; this bundle has {known}")
        return points[name]

    def decide(self, probs: NDArray[np.floating], point: OperatingPoint | None) -> Decision | None:
        """What one image's calibrated probabilities, (n_classes,), come to at a point.

        None where there is no positive class or no operating point.
        """
        if self.positive_index is None or point is None:
            return None
        return point.decide(float(probs[self.positive_index]))


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and verify every file in it.

    Raises:
        BundleError: naming the file that is missing, changed, or not listed, or the newer schema.
    """
    path = folder / MANIFEST
    try:
        text = _read_manifest(path)
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{folder}: no readable {MANIFEST}; name a folder that consilium ensemble made"
        ) from error
    manifest = _parse(text, path)
    verify_files(folder, manifest.files, _names_used(manifest), index=MANIFEST)
    return Bundle(folder, manifest)


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A scratch folder that takes the bundle's place when all of it is written.

    Raises:
        BundleError: something else stands there.
    """
    _refuse_other_folder(folder)
    scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    scratch.mkdir(parents=True)
    try:
        yield scratch
        _replace(folder, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _replace(folder: Path, scratch: Path) -> None:
    """Put a finished bundle in its place; the one that stood there stays where this fails."""
    if not folder.exists():
        scratch.replace(folder)
        return
    _refuse_other_folder(folder)
    old = scratch.with_suffix(".old")
    folder.replace(old)
    try:
        scratch.replace(folder)
    except OSError:
        old.replace(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _refuse_other_folder(folder: Path) -> None:
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder}: stands in the bundle's place and is none; take it away")


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 by relative path of every file below a folder, the manifest left out."""
    paths = sorted(p for p in folder.rglob("*") if not p.is_dir())
    names = {p.relative_to(folder).as_posix(): p for p in paths}
    return {name: sha256(path) for name, path in names.items() if name != MANIFEST}


def _read_manifest(path: Path) -> str:
    if path.exists() and not path.is_file():  # reading a pipe would never end
        raise BundleError(f"{path}: not a plain file; build the bundle again")
    with path.open("rb") as file:
        content = file.read(LARGEST_MANIFEST + 1)
    if len(content) > LARGEST_MANIFEST:
        raise BundleError(f"{path}: larger than 32 MB; build the bundle again")
    return content.decode("utf-8")


def _parse(text: str, path: Path) -> Manifest:
    try:
        document = json.loads(text)
        version = int(document["schema_version"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BundleError(f"{path}: not a bundle's manifest; build the bundle again") from error
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema {version} is newer than {SCHEMA_VERSION}, the newest known here; "
            "update consilium"
        )
    if version < SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema {version} is older than {SCHEMA_VERSION}; "
            "build the bundle again with consilium ensemble"
        )
    if _json(_with_digest(document)) != text:
        raise BundleError(f"{path}: changed since it was built; build the bundle again")
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        where = ".".join(str(key) for key in error.errors()[0]["loc"])
        raise BundleError(f"{path}: {where} is not as built; build the bundle again") from error


def _names_used(manifest: Manifest) -> Iterator[str]:
    """Every file that the manifest says is loaded."""
    for network in (network for member in manifest.members for network in member.networks):
        yield from (network.weights_file, network.onnx_file)
        if network.int8_file is not None:
            yield network.int8_file
    if manifest.out_of_distribution is not None:
        yield manifest.out_of_distribution.reference_file
    if manifest.seen_file is not None:
        yield manifest.seen_file
    yield from ("golden/probs.json", "metrics.json")


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _with_digest(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it is sealed: its own fields, so that a later version can check it, too."""
    rest = {key: value for key, value in document.items() if key != "digest"}
    return {**rest, "digest": hashlib.sha256(_json(rest).encode()).hexdigest()}
