"""Write a Space: the page, the bundle's files, and the modules that scoring them loads."""

import ast
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from importlib.metadata import packages_distributions, version
from pathlib import Path

from ensemble.bundle import MANIFEST, Bundle, load_bundle
from search.errors import ServingError
from serving.space.app import NOTICE, needed

ROOT = Path(__file__).resolve().parents[2]  # where search, ensemble and serving lie
GRADIO = "6.31.0"  # the Space's sdk_version
# Gradio bounds these itself: exact pins would not install beside it. The page checks the golden
# images, whatever comes.
SHARED = {"numpy": ">=2,<3", "pillow": ">=11", "pydantic": ">=2.10,<3", "pyyaml": ">=6,<7"}
BROUGHT = ("pydantic-core",)  # pydantic pins it
OURS = ("search", "ensemble")
# Scores a bundle as the Space will, and says what was imported for it.
PROBE = """
import json, sys
from pathlib import Path
from serving.space.app import open_bundle
open_bundle(Path(sys.argv[1]))
print(json.dumps(sorted(sys.modules)))
"""
PROBE_S = 300


def write_space(bundle_folder: Path, output: Path) -> Path:
    """Write a Hugging Face Space that scores a bundle.

    Args:
        bundle_folder: a bundle; all of it is verified, and what scoring needs is copied.
        output: a folder that is not there yet, or is empty.

    Returns:
        The folder, whole; nothing is left of one that could not be finished.

    Raises:
        BundleError: the bundle is damaged.
        ServingError: something stands in the folder's place, or the bundle cannot be scored here.
    """
    output = output.resolve()
    _refuse_other(output)
    bundle = load_bundle(bundle_folder)
    scratch = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        scratch.mkdir(parents=True)
        _fill(scratch, bundle)
        scratch.replace(output)  # takes the place of an empty folder, too
    except OSError as error:
        reason = (error.strerror or "cannot be written").lower()
        raise ServingError(f"{output}: {reason}; name another folder") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return output


def _refuse_other(output: Path) -> None:
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ServingError(
            f"{output}: something stands there already; name a new folder, or take it away"
        )


def _fill(space: Path, bundle: Bundle) -> None:
    for name in (MANIFEST, *needed(bundle.manifest)):
        _copy(bundle.folder / name, space / "bundle" / name)
    _copy(ROOT / "serving" / "space" / "app.py", space / "app.py")
    loaded = _loaded_by(space / "bundle")
    for name in loaded:
        if name.split(".")[0] in OURS:
            source = _source(name)
            _copy(source, space / source.relative_to(ROOT))
    _copy(ROOT / "LICENSE", space / "LICENSE", optional=True)
    pins = requirements(space.rglob("*.py"), loaded)
    (space / "requirements.txt").write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
    (space / "README.md").write_text(readme(bundle), encoding="utf-8")
    # A Hub repository takes binary files only by its large file storage.
    tracked = "".join(
        f"*.{end} filter=lfs diff=lfs merge=lfs -text\n" for end in ("onnx", "png", "safetensors")
    )
    (space / ".gitattributes").write_text(tracked, encoding="utf-8")


def _loaded_by(folder: Path) -> list[str]:
    """Names of all modules that a fresh interpreter imports to score the golden images."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        found = subprocess.run(
            [sys.executable, "-P", "-c", PROBE, str(folder)],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServingError(f"scoring the golden images took over {PROBE_S} s; try again") from error
    if found.returncode:
        reason = (found.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ServingError(f"the Space cannot score the bundle: {reason[:300]}; build it again")
    modules: list[str] = json.loads(found.stdout.splitlines()[-1])
    return modules


def _source(name: str) -> Path:
    base = ROOT.joinpath(*name.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def requirements(sources: Iterator[Path], loaded: Sequence[str]) -> list[str]:
    """What pip must install: the libraries that these files import and that were loaded.

    A library that a file only imports where it trains, such as torch, was not.
    """
    known = {name.partition(".")[0] for name in loaded}
    wanted = {name for source in sources for name in _imports(source)} & known
    owners = packages_distributions()
    outside = wanted - {*OURS, *sys.stdlib_module_names}
    names = {owners[name][0].lower().replace("_", "-") for name in outside if name in owners}
    names -= {*BROUGHT}
    return sorted(f"{name}{SHARED.get(name) or '==' + _release(name)}" for name in names)


def _imports(source: Path) -> Iterator[str]:
    """Top-level names that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def _release(name: str) -> str:
    return version(name).partition("+")[0]  # a local build is on no index


def readme(bundle: Bundle) -> str:
    """README.md: the Space's settings as YAML, and what it is."""
    manifest = bundle.manifest
    title = f"{manifest.name} {manifest.version}"
    python = ".".join(str(part) for part in sys.version_info[:2])
    return f"""---
title: {json.dumps(title)}
sdk: gradio
sdk_version: "{GRADIO}"
python_version: "{python}"
app_file: app.py
pinned: false
license: other
license_name: see-the-card
license_link: bundle/card.md
---

# {title}

{NOTICE}

An ensemble of {len(manifest.members)} that gives an image calibrated probabilities of
{", ".join(manifest.classes)}. What it was made from, how good it is, and the licences of its data
and weights are in [its card](bundle/card.md); the code is Consilium's, under Apache-2.0.

The page verifies every file of the bundle at start, and deletes the images sent to it after a
minute or two. The bundle's digest is `{manifest.digest}`. To try it here:

    pip install gradio=={GRADIO} -r requirements.txt
    python app.py
"""


def _copy(source: Path, target: Path, *, optional: bool = False) -> None:
    if optional and not source.is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
