"""Releases: copies of bundles that never change once they are there, for a service to serve."""

import os
import shutil
from pathlib import Path

from ensemble.bundle import MANIFEST, Bundle, load_bundle
from search.errors import BundleError

DIGITS = 12  # of the digest in a release's name


def release_name(bundle: Bundle) -> str:
    """A bundle's name with the head of its digest."""
    return f"{bundle.manifest.name}-{bundle.manifest.digest[:DIGITS]}"


def release(bundle: Bundle, releases: Path) -> Bundle:
    """The bundle's copy below `releases`: one that is there is verified and kept.

    Raises:
        BundleError: something else stands in its place, or the copy is not what the bundle is.
    """
    folder = releases / release_name(bundle)
    if not folder.exists():
        _copy(bundle, folder)
    try:
        found = load_bundle(folder)
    except BundleError as error:
        raise BundleError(f"{error}; the release is damaged: take {folder} away") from error
    if found.manifest.digest != bundle.manifest.digest:
        raise BundleError(f"{folder}: holds another bundle; take it away")
    return found


def find_release(releases: Path, digest: str) -> Path | None:
    """The release of that digest, if it was made."""
    found = sorted(releases.glob(f"*-{digest[:DIGITS]}"))
    return next((path for path in found if (path / MANIFEST).is_file()), None)


def _copy(bundle: Bundle, folder: Path) -> None:
    """Copy under a temporary name, see that it is whole, and rename."""
    scratch = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)  # of a copy that was killed
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(bundle.folder, scratch)
        if load_bundle(scratch).manifest.digest != bundle.manifest.digest:
            raise BundleError(f"{bundle.folder}: changed while it was copied; try again")
        _settle(scratch)
        scratch.rename(folder)
        _settle(folder.parent, deep=False)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _settle(folder: Path, *, deep: bool = True) -> None:
    """Have everything on the disk: after a power cut no name may stand on an empty file."""
    for path in [*(folder.rglob("*") if deep else []), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
