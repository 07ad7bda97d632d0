"""Bundles with something changed, sealed again."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.bundle import MANIFEST, hash_files, load_bundle
from ensemble.manifest import Manifest
from ensemble.runtime import Runtime
from search.data.transforms import decode
from tests.tiny import tiny_bytes


def rebuilt(
    folder: Path, old: Path, *, golden: float | None = None, sealed: bool = False, **changes: Any
) -> Path:
    """A copy of a bundle with changes in its manifest.

    Args:
        golden: gives it one golden image whose probabilities are off by so much.
        sealed: its files were changed, too: what they are now is what they shall be.
    """
    shutil.copytree(old, folder)
    if golden is not None:
        (folder / "golden" / "0.png").write_bytes(tiny_bytes(7))
        probs = Runtime(load_bundle(old)).predict([decode(tiny_bytes(7))]).probs[0]
        off = (probs + np.array([golden, -golden])).tolist()
        (folder / "golden" / "probs.json").write_text(json.dumps({"onnx": {"0.png": off}}))
    text = json.loads((old / MANIFEST).read_text())
    before = Manifest.model_validate(text) if sealed else load_bundle(old).manifest
    manifest = before.model_copy(update=changes)
    manifest = manifest.model_copy(update={"files": hash_files(folder)})
    (folder / MANIFEST).write_text(manifest.sealed_text())
    return folder
