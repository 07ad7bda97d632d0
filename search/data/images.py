"""Image files wherever they lie: a table's column `path` names a local file or the URL of one."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from search.data.transforms import decode
from search.errors import DamagedImageError
from search.location import TOGETHER, is_url, open_place, read_bytes


def read_image(path: str | Path) -> bytes:
    """A file's bytes.

    Raises:
        FileNotFoundError: there is none.
        OSError: a local one cannot be read.
        StudyError: the object store does not give it; see search.location.explained.
    """
    return read_bytes(open_place(str(path)))


def fetch_image(path: str | Path) -> Path | bytes:
    """What `decode` takes: a local file's path, or an object's bytes.

    Raises:
        DamagedImageError: there is no such object.
        StudyError: as `read_image`.
    """
    if not is_url(path):
        return Path(path)
    try:
        return read_image(path)
    except FileNotFoundError as error:
        raise DamagedImageError(f"{path}: no such file; check the path") from error


def open_image(path: str | Path, *, at_least: int | None = None) -> Image.Image:
    """An image in RGB; see search.data.transforms.decode for the arguments and what it raises."""
    return decode(fetch_image(path), at_least=at_least, name=str(path))


def readers(paths: Iterable[str | Path], threads: int) -> int:
    """Threads to read files by: an object store answers late, but many at once."""
    return max(threads, TOGETHER) if any(is_url(path) for path in paths) else threads
