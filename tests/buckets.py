"""Files of a test in a bucket, and what is asked of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from upath import UPath

from search.location import open_place


def upload(folder: Path, url: str) -> str:
    """Copy all that lies below a folder to objects of the same names; the URL."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            put(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url


def put(url: str, content: bytes) -> None:
    place = open_place(url)
    assert isinstance(place, UPath)
    place.fs.pipe_file(place.path, content)


def remove(url: str) -> None:
    place = open_place(url)
    assert isinstance(place, UPath)
    place.fs.rm_file(place.path)


@contextmanager
def noted_requests() -> Iterator[list[str]]:
    """The names of what this process asks of S3 meanwhile."""
    kind = type(UPath("s3://any").fs)
    real = kind._call_s3
    asked: list[str] = []

    async def noted(fs: Any, method: str, *args: Any, **more: Any) -> Any:
        asked.append(method)
        return await real(fs, method, *args, **more)

    with patch.object(kind, "_call_s3", noted):
        yield asked
