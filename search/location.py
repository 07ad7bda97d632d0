"""Where a study and its images lie: local, or at URLs of an object store; both read alike."""

import errno
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from upath import UPath

from search.errors import StudyError

Place = Path | UPath  # what is no Path lies in an object store

DRIVERS = {"s3": "s3fs", "gs": "gcsfs"}
TOGETHER = 32  # requests; more would wait for a connection and time out
# Other processes write, too: no listing is kept.
OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,
        "config_kwargs": {
            "connect_timeout": 5,
            "retries": {"total_max_attempts": 3},
            "max_pool_connections": TOGETHER,
        },
    },
    "gs": {"use_listings_cache": False},
}
# s3fs would ask for a file's size first, to fetch large ones in pieces.
READING: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 1}}
Stamp = tuple[int, int]  # bytes of a file, and a number that is another one when it changes
ABSENT: Stamp = (0, 0)
ANSWER_WITHIN = 15.0  # seconds; only where nothing has begun, later outages are sat out longer
# By the names of s3fs' and botocore's exceptions, which are there only with the extra.
REASONS = {
    "PermissionError": "access denied; check the credentials and the bucket's policy",
    "NoCredentialsError": "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "PartialCredentialsError": "half the credentials; set AWS_SECRET_ACCESS_KEY, too",
    "ConnectionError": "cannot be reached; check AWS_ENDPOINT_URL and the network",
    "HTTPClientError": "does not answer; check AWS_ENDPOINT_URL and the network",
    "TimeoutError": "does not answer; check AWS_ENDPOINT_URL and the network",
}


def is_url(location: str | Path) -> bool:
    """Whether it lies in an object store."""
    return isinstance(location, str) and "://" in location


def checked_url(url: str) -> str:
    """A URL of an object store that can be opened here.

    Raises:
        ValueError: another scheme, no bucket, or its driver is not installed.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in DRIVERS or not rest.partition("/")[0]:
        raise ValueError("a local folder, s3://bucket/prefix or gs://bucket/prefix is expected")
    if find_spec(DRIVERS[scheme]) is None:
        extra = "'consilium[s3]'" if scheme == "s3" else DRIVERS[scheme]
        raise ValueError(f"{scheme}:// needs {DRIVERS[scheme]}; pip install {extra}")
    return url.rstrip("/")


def open_place(location: str) -> Place:
    """A path, or a URL; nothing is connected yet."""
    if "://" not in location:
        return Path(location)
    place: UPath = UPath(location, **OPTIONS[location.partition("://")[0]])
    return place


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """Turn what an object store says into one line.

    All errors of a local disk stay what they are, and so does FileNotFoundError for a file.

    Raises:
        StudyError: no such bucket, access denied, no credentials, not reached in time.
    """
    try:
        yield
    except Exception as error:
        reason = None if isinstance(place, Path) else _reason(error)
        if reason is None:
            raise
        raise StudyError(f"{place}: {reason}") from error


def _reason(error: Exception) -> str | None:
    names = [kind.__name__ for kind in type(error).__mro__]
    if "FileNotFoundError" in names:
        lost = type(error.__cause__).__name__ == "NoSuchBucket"
        return "there is no such bucket; create it or name another" if lost else None
    known = (REASONS[name] for name in names if name in REASONS)
    other = " ".join(str(error).split())[:200] or names[0]
    return next(known, other if {"OSError", "BotoCoreError"} & {*names} else None)


def read_bytes(place: Place, *, within: float | None = None) -> bytes:
    """A whole file.

    Args:
        within: seconds that an object store may take.
    """
    if isinstance(place, Path):
        return place.read_bytes()
    options = READING.get(place.protocol, {})
    try:
        with explained(place):
            content: bytes = place.fs.cat_file(place.path, timeout=within, **options)
    except FileNotFoundError as error:  # its own message names no file
        raise FileNotFoundError(errno.ENOENT, "no such object", str(place)) from error
    return content


def read_many(places: Sequence[Place]) -> list[bytes]:
    """Whole files that are not empty, in one flight where they lie in an object store."""
    remote = [place for place in places if not isinstance(place, Path)]
    if not remote or len(remote) < len(places):
        return [read_bytes(place) for place in places]
    with explained(remote[0]):
        # A range from 0 is one request; for whole files s3fs would ask for each one's size first.
        contents: list[bytes] = remote[0].fs.cat_ranges(
            [place.path for place in remote], 0, None, batch_size=TOGETHER, on_error="raise"
        )
    return contents


def list_files(folder: Place) -> dict[str, int]:
    """Bytes of every file below a folder, by its relative name with slashes; none if it is absent.

    One listing, whatever the folder holds.
    """
    if isinstance(folder, Path):
        return dict(_walk(folder))
    return {name: size for name, (size, _) in list_objects(folder).items()}


def list_objects(folder: UPath) -> dict[str, Stamp]:
    """The stamp of every object below a folder, by its relative name; none if it is absent.

    One listing, in the order of the names.
    """
    with explained(folder):
        found = folder.fs.find(folder.path, detail=True)
    start = len(folder.path.rstrip("/")) + 1
    return {name[start:]: _stamp(about) for name, about in found.items()}


def _stamp(about: Mapping[str, Any]) -> Stamp:
    # By the names of s3fs and gcsfs. A time alone, in whole seconds, would miss a quick change.
    told = [str(about.get(key)) for key in ("ETag", "etag", "LastModified", "updated")]
    digest = hashlib.sha256(" ".join(told).encode()).digest()
    return int(about["size"]), int.from_bytes(digest[:7])


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path.stat().st_size
        except FileNotFoundError:  # a temporary one that has got its name meanwhile
            continue
