"""The bundle: the immutable folder that is served. No pickle, every file listed with its hash."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from ensemble.calibrate import Temperature
from search.data.transforms import Preprocessing
from search.errors import BundleError
from search.params import Config, Params

SCHEMA_VERSION = 1
Decision = Literal["positive", "negative"]
MANIFEST = "bundle.json"


class Member(Config):
    """A candidate that the ensemble asks."""

    name: str
    trial: int
    recipe: str | None = None
    params: Params
    preprocessing: Preprocessing
    weight: float = Field(gt=0, le=1)
    weights_file: str = Field(description="safetensors, the canonical form")
    onnx_file: str = Field(description="built from it; uint8 pixels in, probabilities out")
    parity: float = Field(ge=0, description="largest difference of ONNX from torch at build")


class OperatingPoint(Config):
    """A threshold on the positive class's calibrated probability, and what it was chosen for."""

    name: str
    threshold: float = Field(ge=0, le=1, description="positive where the probability reaches it")
    target: str
    sensitivity: float
    specificity: float
    sensitivity_interval: tuple[float, float] = Field(description="95% Clopper-Pearson")
    n_positive: int
    n_negative: int
    certified: bool
    reason: str = Field(description="why it is certified, or why not")


class Manifest(Config):
    """bundle.json."""

    schema_version: int = SCHEMA_VERSION
    name: str
    version: str
    created: str
    classes: list[str]
    positive: str | None
    members: list[Member] = Field(min_length=1)
    calibrator: Temperature
    operating_points: list[OperatingPoint]
    prevalence: dict[str, float] = Field(description="share of each class in the training data")
    out_of_distribution: None = Field(None, description="reference; none is measured yet")
    provenance: dict[str, Any]
    files: dict[str, str] = Field(description="SHA-256 of every file but this one")

    digest: str = Field("", description="SHA-256 of all else in this file, and so of the bundle")

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
        return "positive" if probs[self.positive_index] >= point.threshold else "negative"


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and verify every file in it.

    Raises:
        BundleError: naming the file that is missing, changed, or not listed, or the newer schema.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{folder}: no readable {MANIFEST}; name a folder that consilium ensemble made"
        ) from error
    manifest = _parse(text, path)
    _verify_files(folder, manifest)
    return Bundle(folder, manifest)


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A scratch folder that takes the bundle's place when all of it is written."""
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
    if not (folder / MANIFEST).is_file():
        raise BundleError(f"{folder}: stands in the bundle's place and is none; take it away")
    old = scratch.with_suffix(".old")
    folder.replace(old)
    try:
        scratch.replace(folder)
    except OSError:
        old.replace(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 by relative path of every file below a folder, the manifest left out."""
    paths = sorted(p for p in folder.rglob("*") if not p.is_dir())
    names = {p.relative_to(folder).as_posix(): p for p in paths}
    return {name: _sha256(path) for name, path in names.items() if name != MANIFEST}


def _parse(text: str, path: Path) -> Manifest:
    try:
        document = json.loads(text)
        version = int(document["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: not a bundle's manifest; build the bundle again") from error
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{path}: schema {version} is newer than {SCHEMA_VERSION}, the newest known here; "
            "update consilium"
        )
    if _json(_with_digest(document)) != text:
        raise BundleError(f"{path}: changed since it was built; build the bundle again")
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        where = ".".join(str(key) for key in error.errors()[0]["loc"])
        raise BundleError(f"{path}: {where} is not as built; build the bundle again") from error


def _verify_files(folder: Path, manifest: Manifest) -> None:
    entries = list(folder.rglob("*"))
    for entry in entries:
        if entry.is_symlink():
            raise BundleError(f"{entry}: a link; a bundle holds its files itself, build it again")
    found = {p.relative_to(folder).as_posix() for p in entries if not p.is_dir()}
    for member in manifest.members:
        for name in (member.weights_file, member.onnx_file):
            if name not in manifest.files:
                raise BundleError(f"{folder}: member file {name} is not listed; build it again")
    for name in sorted(found - {MANIFEST, *manifest.files}):
        raise BundleError(f"{folder / name}: not listed in {MANIFEST}; take the file away")
    for name, expected in manifest.files.items():
        path = folder / name
        if name not in found:
            raise BundleError(f"{path}: missing from the bundle; build it again")
        if _sha256(path) != expected:
            raise BundleError(f"{path}: changed since it was built; build the bundle again")


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _with_digest(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it is sealed: its own fields, so that a later version can check it, too."""
    rest = {key: value for key, value in document.items() if key != "digest"}
    return {**rest, "digest": hashlib.sha256(_json(rest).encode()).hexdigest()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
