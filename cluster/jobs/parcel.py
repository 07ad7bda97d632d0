"""The folder that a job works in: the packages as they are imported here, and one experiment.

Neither data nor a repository's history travels, and no password.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from cluster.pipeline.config import pipeline_config
from ensemble.config import ensemble_config
from search.config import ExperimentConfig
from search.errors import ClusterError
from search.study.storage import without_password

PACKAGES = ("search", "ensemble", "serving", "cluster")
# What a package consists of; keys, weights or notes that lie beside it stay here.
SUFFIXES = {".py", ".j2", ".yaml", ".html", ".css", ".js", ".txt", ".md"}
CONFIG = "experiment.yaml"
LARGEST = 32 * 2**20  # bytes; the head keeps every parcel in its memory


@dataclass(frozen=True)
class Parcel:
    """A folder to be uploaded, and what it is about."""

    folder: Path
    digest: str  # of the config in it, 64 hexadecimal digits
    n_bytes: int


@contextmanager
def packed(path: Path, settings: ExperimentConfig) -> Iterator[Parcel]:
    """A parcel in a temporary folder, for the length of the block.

    Args:
        path: of the YAML that the settings were read from.

    Raises:
        ConfigError: a mistake in a section of the YAML.
        ClusterError: it is larger than a head should keep.
    """
    text = yaml.safe_dump(resolved_document(path, settings), sort_keys=False)
    with tempfile.TemporaryDirectory(prefix="consilium-") as name:
        folder = Path(name)
        for package in PACKAGES:
            _copy(package, folder / package)
        (folder / CONFIG).write_text(text, encoding="utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()
        yield Parcel(folder, digest, _checked_size(folder))


def resolved_document(path: Path, settings: ExperimentConfig) -> dict[str, Any]:
    """The config as `load_config` reads it anywhere: absolute paths, no password.

    Raises:
        ConfigError: a mistake in a section of the YAML.
    """
    document = settings.model_dump(mode="json")
    for name, section in _sections(path, settings).items():
        document[name] = _with_paths(document[name], section)
    if settings.storage is not None:
        document["storage"] = without_password(settings.storage)
    if settings.tracking.mlflow is not None:
        document["tracking"]["mlflow"] = without_login(settings.tracking.mlflow)
    return document


def local_folders(path: Path, settings: ExperimentConfig, *, search: bool) -> list[Path]:
    """What every node must see: the sources, weights, own recipes and the output; no cache.

    Args:
        path: of the YAML that the settings were read from.
        search: leave out what only an ensemble or a pipeline reads.
    """
    named: list[Any] = [settings.weights.folder, settings.portfolio.file, settings.output]
    named += [settings.study, *_paths_in(settings.dataset)]
    named += [] if search else _paths_in(_sections(path, settings))
    local = (Path(place) for place in named if place is not None and "://" not in str(place))
    return _outermost([p if p.is_dir() or not p.suffix else p.parent for p in local])


def without_login(url: str) -> str:
    """A URL less its user and password."""
    return re.sub(r"(?<=://)[^/?#]*@", "", url)


def _sections(path: Path, settings: ExperimentConfig) -> dict[str, BaseModel]:
    """Those parts that the packages to the right of the search check, with paths resolved."""
    return {
        "ensemble": ensemble_config(path, settings),
        "pipeline": pipeline_config(path, settings),
    }


def _paths_in(checked: Any) -> Iterator[Path]:
    """All local paths within a section."""
    if isinstance(checked, Path):
        yield checked
    elif isinstance(checked, BaseModel):
        yield from _paths_in([getattr(checked, name) for name in type(checked).model_fields])
    elif isinstance(checked, Mapping):
        yield from _paths_in(list(checked.values()))
    elif isinstance(checked, list | tuple):
        for value in checked:
            yield from _paths_in(value)


def _with_paths(written: Any, checked: Any) -> Any:
    """What was written, with paths as they were resolved when it was checked."""
    if isinstance(checked, BaseModel):
        checked = {name: getattr(checked, name) for name in type(checked).model_fields}
    if isinstance(checked, Path) and isinstance(written, str):
        return str(checked)
    if isinstance(written, Mapping) and isinstance(checked, Mapping):
        return {key: _with_paths(value, checked.get(key)) for key, value in written.items()}
    if isinstance(written, Sequence) and isinstance(checked, Sequence) and written != checked:
        return [_with_paths(*pair) for pair in zip(written, checked, strict=True)]
    return written


def _outermost(folders: list[Path]) -> list[Path]:
    """Each once, less those within another one."""
    known = sorted(set(folders))
    return [folder for folder in known if not set(folder.parents) & set(known)]


def _copy(package: str, to: Path) -> None:
    """A package's files, from wherever it is imported; folders that are no packages stay."""
    for source in map(Path, import_module(package).__path__):
        for folder in (source, *(p for p in source.rglob("*") if p.is_dir())):
            if not (folder / "__init__.py").is_file():
                continue
            target = to / folder.relative_to(source)
            target.mkdir(parents=True, exist_ok=True)
            for file in folder.iterdir():
                if file.is_file() and file.suffix in SUFFIXES:
                    shutil.copyfile(file, target / file.name)


def _checked_size(folder: Path) -> int:
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > LARGEST:
        largest = max(sizes, key=lambda path: sizes[path])
        raise ClusterError(
            f"the packages and the config are {total / 2**20:.0f} MiB, at most "
            f"{LARGEST / 2**20:.0f} can be sent; the largest file is {largest.relative_to(folder)}"
        )
    return total
