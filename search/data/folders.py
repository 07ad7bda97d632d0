"""Folders of images, on a disk or in an object store: what they hold and where it lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from upath import UPath

from search.location import Stamp, list_objects, open_place

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True)
class DiskFolder:
    """A folder on a disk."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        return self.path.is_dir()

    def folders(self, below: str = "") -> list[str]:
        """Names of the folders right in it or in one of its folders, hidden ones left out."""
        places = sorted(p for p in (self.path / below).iterdir() if p.is_dir())
        return [self._name(place) for place in places if not place.name.startswith(".")]

    def images(self, below: str = "") -> list[str]:
        """Names of all image files, relative to the whole folder."""
        found = (self.path / below).rglob("*")
        return [self._name(p) for p in found if p.suffix.lower() in EXTENSIONS and p.is_file()]

    def locate(self, name: str) -> str:
        """The `path` of a file."""
        return str(self.path / name)

    def name_of(self, path: str) -> str | None:
        """The reverse of `locate`; None for a file elsewhere."""
        return self._name(Path(path)) if Path(path).is_relative_to(self.path) else None

    def stamp(self, path: str) -> None:
        """A disk is asked when it is needed."""

    def _name(self, place: Path) -> str:
        return place.relative_to(self.path).as_posix()


@dataclass(frozen=True)
class StoreFolder:
    """A folder in an object store, by its one listing."""

    url: str
    listing: Mapping[str, Stamp]

    def __str__(self) -> str:
        return self.url

    def exists(self) -> bool:
        return bool(self.listing)

    def folders(self, below: str = "") -> list[str]:
        """As DiskFolder's."""
        depth = len(PurePosixPath(below).parts)
        inside = (PurePosixPath(name).parts for name in self._below(below))
        found = {parts[: depth + 1] for parts in inside if len(parts) > depth + 1}
        return ["/".join(parts) for parts in sorted(found) if not parts[-1].startswith(".")]

    def images(self, below: str = "") -> list[str]:
        """As DiskFolder's."""
        names = self._below(below)
        return [name for name in names if PurePosixPath(name).suffix.lower() in EXTENSIONS]

    def locate(self, name: str) -> str:
        """The `path` of a file."""
        return f"{self.url}/{name}"

    def name_of(self, path: str) -> str | None:
        """The reverse of `locate`; None for a file elsewhere."""
        start = f"{self.url}/"
        return path.removeprefix(start) if path.startswith(start) else None

    def stamp(self, path: str) -> Stamp | None:
        """As it was listed; None for a file elsewhere or one that is not there."""
        return self.listing.get(self.name_of(path) or "")

    def _below(self, below: str) -> list[str]:
        return [name for name in self.listing if not below or name.startswith(f"{below}/")]


Folder = DiskFolder | StoreFolder


def open_folder(location: Path | str) -> Folder:
    """A folder of images; one in an object store is listed now.

    Raises:
        StudyError: the object store does not tell; see search.location.explained.
    """
    place = open_place(str(location))
    if isinstance(place, UPath):
        return StoreFolder(str(location), list_objects(place))
    return DiskFolder(place)
