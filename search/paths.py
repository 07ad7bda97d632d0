"""Paths in a config: local ones come out absolute, URLs stand where an object store may be named.

Relative ones are of the folder that the YAML lies in.
"""

import os
import socket
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from search.errors import CacheError
from search.location import checked_url, is_url


def _resolve(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path.cwd())
    return Path(folder, path.expanduser()).resolve()


def _local(value: Any) -> Any:
    if is_url(value):
        raise ValueError("a local path is needed; only study and dataset.sources may be URLs")
    return value


def _resolve_study(location: str, info: ValidationInfo) -> str:
    return checked_url(location) if is_url(location) else str(_resolve(Path(location), info))


def _resolve_source(location: Path | str, info: ValidationInfo) -> Path | str:
    return checked_url(str(location)) if is_url(location) else _resolve(Path(location), info)


def _resolve_on_node(path: Path, info: ValidationInfo) -> Path:
    return path if "$" in str(path) else _resolve(path, info)


Location = Annotated[Path, BeforeValidator(_local), AfterValidator(_resolve)]
NodeLocation = Annotated[Path, BeforeValidator(_local), AfterValidator(_resolve_on_node)]
SourceLocation = Annotated[Path | str, AfterValidator(_resolve_source)]
StudyLocation = Annotated[str, AfterValidator(_resolve_study)]


def on_this_node(path: Path) -> Path:
    """A path with the environment variables in it put in, as this machine has them.

    Raises:
        CacheError: one is not set, or what comes out is not absolute.
    """
    if "$" not in str(path):
        return path
    folder = Path(os.path.expandvars(path))
    if "$" in str(folder) or not folder.is_absolute():
        raise CacheError(
            f"cache: {path} is {folder} on {socket.gethostname()}; set the variable to an absolute "
            "folder on every node, or name a folder without one"
        )
    return folder
