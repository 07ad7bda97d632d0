"""The bundle: the immutable folder that is served. No pickle, every file listed with its hash."""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ensemble.contents import sha256, verify_files
from ensemble.decision.points import Decision, OperatingPoint
from ensemble.manifest import SCHEMA_VERSION, Manifest, canonical
from search.errors import BundleError

MANIFEST = "bundle.json"
LARGEST_MANIFEST = 32 * 2**20  # bytes


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
    if canonical(document) != text:
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
