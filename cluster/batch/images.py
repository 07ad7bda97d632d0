"""Where a table's images lie, and their bytes or what is wrong with them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from PIL import Image, UnidentifiedImageError

from search.data.folders import EXTENSIONS
from search.data.transforms import FORMATS, decode
from search.errors import DamagedImageError
from search.location import (
    DRIVERS,
    TOGETHER,
    checked_url,
    explained,
    is_url,
    list_files,
    open_place,
)

LARGEST = 64 * 2**20  # bytes of a file; a phone's photo has 10
# By what an object store says of a single request; all that is 500 and more is an outage.
REFUSED = range(300, 500)
BUSY = (408, 429)
WINDOW = 32  # images that are fetched in one flight; the next one's flight is under way meanwhile
SUFFIXES = ("", *EXTENSIONS, *(suffix.upper() for suffix in EXTENSIONS))

Given = TypeVar("Given")
Made = TypeVar("Made")


class Fault(NamedTuple):
    """Why an image has no probabilities: `missing: …`, `unreadable: …`, `truncated: …`,
    `too large: …` or `unscorable: …`."""

    reason: str


MISSING = Fault("missing: no such file")
NAMELESS = Fault("missing: the table names no image")


class Folders:
    """Folders and prefixes that a table's names are relative to; the first that has one counts."""

    def __init__(self, roots: Sequence[str]) -> None:
        """List the prefixes of object stores, once; folders are looked into name by name."""
        self._roots = [(root, _listing(root) if is_url(root) else None) for root in roots]

    def find(self, name: str) -> str | None:
        """The path or URL of an image whose extension may be missing; None where there is none."""
        if is_url(name):
            return name
        if Path(name).is_absolute():
            return _in_folder("/", name)
        for root, listing in self._roots:
            found = _in_folder(root, name) if listing is None else listing.get(name)
            if found is not None:
                return found
        return None


def read_images(places: Iterable[str | None]) -> Iterator[bytes | Fault]:
    """The files' bytes in the given order; those of object stores are fetched ahead.

    Raises:
        StudyError: an object store does not answer; that is no image's fault.
    """
    with ThreadPoolExecutor(1) as pool:
        for window in ahead(pool, _read_window, _windows(places), depth=1):
            yield from window


def ahead(
    pool: Executor, make: Callable[[Given], Made], given: Iterable[Given], *, depth: int
) -> Iterator[Made]:
    """What `make` makes of each, in order, so many of them ahead of who takes them."""
    waiting: deque[Future[Made]] = deque()
    for one in given:
        waiting.append(pool.submit(make, one))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def decoded(file: bytes | Fault) -> Image.Image | Fault:
    """The image as the runtime takes it (see search.data.transforms.decode)."""
    if isinstance(file, Fault):
        return file
    if not file:
        return Fault("unreadable: the file is empty")
    try:
        return decode(file)
    except DamagedImageError as error:
        return _fault(error)


def _fault(error: DamagedImageError) -> Fault:
    cause, said = error.__cause__, str(error).removeprefix("image: ").partition(";")[0]
    if cause is None or isinstance(
        cause, Image.DecompressionBombError | Image.DecompressionBombWarning
    ):
        return Fault(f"too large: {said}")
    if isinstance(cause, UnidentifiedImageError):
        return Fault(f"unreadable: no {', '.join(FORMATS)} image")
    is_short = "truncated" in said.lower() or isinstance(cause, EOFError)
    return Fault(f"{'truncated' if is_short else 'unreadable'}: {said}")


def _listing(root: str) -> dict[str, str]:
    """URLs by name below a prefix, and by name without its extension."""
    found: dict[str, str] = {}
    for name in sorted(list_files(open_place(root))):
        if PurePosixPath(name).suffix.lower() in EXTENSIONS:
            url = f"{root.rstrip('/')}/{name}"
            found.setdefault(PurePosixPath(name).with_suffix("").as_posix(), url)
            found[name] = url
    return found


def _in_folder(root: str, name: str) -> str | None:
    paths = (Path(root) / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((str(path) for path in paths if _is_there(path)), None)


def _windows(places: Iterable[str | None]) -> Iterator[list[str | None]]:
    """Runs of images: many where one lies in an object store, one by one else."""
    window: list[str | None] = []
    for place in places:
        window.append(place)
        if len(window) == WINDOW or not any(each and is_url(each) for each in window):
            yield window
            window = []
    if window:
        yield window


def _read_window(places: Sequence[str | None]) -> list[bytes | Fault]:
    remote = _read_remote([place for place in places if place and is_url(place)])
    return [
        MISSING if place is None else remote[place] if is_url(place) else _read_local(Path(place))
        for place in places
    ]


def _read_local(path: Path) -> bytes | Fault:
    try:
        if not path.is_file():  # reading a pipe would never end
            return Fault("unreadable: no plain file") if path.exists() else MISSING
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except FileNotFoundError:
        return MISSING
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Fault(f"unreadable: {reason.lower()[:200]}")
    return _bounded(content)


def _read_remote(urls: Sequence[str]) -> dict[str, bytes | Fault]:
    faults = {url: fault for url in urls if (fault := _ill_named(url)) is not None}
    found: dict[str, bytes | Fault] = {**faults}
    good = [url for url in dict.fromkeys(urls) if url not in faults]
    for scheme in sorted({url.partition("://")[0] for url in good}):
        these = [url for url in good if url.startswith(f"{scheme}://")]
        places: list[Any] = [open_place(url) for url in these]
        with explained(places[0]):
            contents = places[0].fs.cat_ranges(
                [place.path for place in places],
                0,
                LARGEST + 1,
                batch_size=TOGETHER,
                on_error="return",
            )
        pairs = zip(places, contents, strict=True)
        found |= {
            url: _told(place, content) for url, (place, content) in zip(these, pairs, strict=True)
        }
    return found


def _ill_named(url: str) -> Fault | None:
    """What is wrong with a URL that no image can have, or none that is readable here."""
    scheme, _, rest = url.partition("://")
    if scheme not in DRIVERS:
        return Fault(f"unreadable: {scheme[:40]}:// is not understood")
    try:
        checked_url(url)
    except ValueError as error:
        return Fault(f"unreadable: {error}")
    if not rest.partition("/")[2]:
        return Fault("unreadable: the URL names a bucket and no image")
    return None


def _told(place: Any, content: bytes | Exception) -> bytes | Fault:
    """An object's bytes, or what its own fault is.

    Raises:
        StudyError: the object store's fault.
    """
    if not isinstance(content, Exception):
        return _bounded(content)
    if isinstance(content, FileNotFoundError):
        return MISSING
    if isinstance(content, PermissionError):
        return Fault("unreadable: access denied")
    said = " ".join(str(content).split())[:200]
    if _is_unsendable(content):
        return Fault(f"unreadable: {said}")
    if "range" in said.lower():  # nothing from byte 0 on
        return Fault("unreadable: the file is empty")
    if _is_refused(content):
        return Fault(f"unreadable: {said}")
    with explained(place):
        raise content


def _is_unsendable(error: Exception) -> bool:
    """Whether the driver makes no request of such a name."""
    # By its name: botocore's class is there only with the extra. Errors of TLS are both.
    is_value = isinstance(error, ValueError) and not isinstance(error, OSError)
    return is_value or type(error).__name__ == "ParamValidationError"


def _is_refused(error: Exception) -> bool:
    """Whether the object store answers, and refuses this one request."""
    response = getattr(error.__cause__ or error, "response", None)
    about = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    status = about.get("HTTPStatusCode", 0)
    return status in REFUSED and status not in BUSY


def _bounded(content: bytes) -> bytes | Fault:
    if len(content) > LARGEST:
        return Fault(f"too large: more than {LARGEST // 2**20} MB")
    return content


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False
