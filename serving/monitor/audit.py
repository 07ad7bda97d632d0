"""The audit log: one JSON line an image, each with the hash of the line before it; no pixels.

A line that is changed, added or taken out breaks the chain at the next. Who may write the folder
can still cut off the newest lines, or make the whole chain anew: where that matters, keep the last
line's hash elsewhere.
"""

import fcntl
import hashlib
import json
import logging
import mmap
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from search.errors import ServingError
from serving.config import MEBIBYTE, AuditConfig
from serving.problems import ProblemError

FIRST = "0" * 64  # what the first line of all says of the line before it
RETRY_AFTER_S = 10
log = logging.getLogger("consilium.audit")
encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """What was said about one image, to whom.

    Attributes:
        kind: an explanation tells no probabilities and decides nothing.
    """

    kind: Literal["prediction", "explanation"] = "prediction"

    request_id: str
    key: str | None  # id
    bundle: str  # digest
    image: str  # SHA-256 of the file as received
    probabilities: dict[str, float]
    decision: str | None
    operating_point: str | None  # name


class AuditLog:
    """Writes folder/audit-<replica>.jsonl; older files are .1 (newest) to .<files>.

    Args:
        replica: names the file; the same after a restart, so that the chain goes on.
        now: the time, with its zone.

    Raises:
        ServingError: the folder cannot be written, or another process writes this file.
    """

    def __init__(
        self,
        config: AuditConfig,
        *,
        replica: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        name = re.sub(r"[^A-Za-z0-9._-]", "-", replica)[:100]
        self.path = config.folder / f"audit-{name}.jsonl"
        self._limit, self._files, self._now = config.megabytes * MEBIBYTE, config.files, now
        self._lock = threading.Lock()
        self._file: int | None = None
        self._failed = False
        try:
            config.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._previous = _last_hash(self.path)
            self._open()
        except OSError as error:
            self.close()
            raise ServingError(_reason(self.path, error)) from error

    def write(self, entry: AuditEntry) -> None:
        """Append one line; the system has it when this returns.

        Raises:
            ProblemError: 503: an answer that cannot be audited must not be given.
        """
        with self._lock:
            time = self._now().isoformat(timespec="milliseconds")
            said = {name: getattr(entry, name) for name in AuditEntry.__slots__}
            line = encode({"time": time, **said, "previous": self._previous}).encode()
            try:
                self._append(line + b"\n")
            except OSError as error:
                self._fail(error)
                raise ProblemError(
                    503,
                    "audit_unavailable",
                    "the audit log cannot be written, and no answer is given without it",
                    headers={"Retry-After": str(RETRY_AFTER_S)},
                ) from error
            self._previous, self._failed = hashlib.sha256(line).hexdigest(), False

    def close(self) -> None:
        """Let the file go; a later write opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, line: bytes) -> None:
        size = self._size()
        if size and size + len(line) > self._limit:
            self._rotate()
            size = 0
        assert self._file is not None  # noqa: S101 (opened by _size)
        written = -1
        try:
            written = os.write(self._file, line)
        finally:
            if written != len(line):  # a full disk may take a part
                with suppress(OSError):
                    os.ftruncate(self._file, size)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes could be written")

    def _size(self) -> int:
        """Of the file that bears the name: a deleted one would swallow lines without an error."""
        if self._file is not None:
            mine = os.fstat(self._file)
            with suppress(FileNotFoundError):
                if os.path.samestat(self.path.stat(), mine):
                    return mine.st_size
        self.close()
        self._open()
        assert self._file is not None  # noqa: S101
        return os.fstat(self._file).st_size

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        # Two writers would break each other's chain.
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(self._file, 0o600)
        # What a crash left of a line was never followed by an answer.
        os.ftruncate(self._file, _whole(self._file))

    def _rotate(self) -> None:
        for number, path in _older(self.path):
            if number >= self._files:
                path.unlink()
            else:
                path.replace(_numbered(self.path, number + 1))
        self.path.replace(_numbered(self.path, 1))
        self.close()
        self._open()

    def _fail(self, error: OSError) -> None:
        self.close()
        if not self._failed:  # once, not with each request
            log.error("%s", _reason(self.path, error))
        self._failed = True


def verify(path: Path) -> int:
    """Check the chain of a log through its older files, the oldest first.

    Args:
        path: of the newest file, audit-<replica>.jsonl.

    Returns:
        Lines checked.

    Raises:
        ServingError: naming the first line that does not follow from the one before it.
    """
    older = _older(path)
    files = [each for _, each in older] + ([path] if path.exists() or not older else [])
    previous = None if older else FIRST  # the oldest files may have been dropped by rotation
    count = 0
    for file in files:
        for number, line in _lines(file):
            if previous is not None and _claimed(line) != previous:
                raise ServingError(
                    f"{file}:{number}: does not follow from the line before it; one of the two "
                    "was changed, or lines between them were removed"
                )
            previous = hashlib.sha256(line).hexdigest()
            count += 1
    return count


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with file.open("rb") as content:
            for number, line in enumerate(content, 1):
                if not line.endswith(b"\n"):
                    raise ServingError(f"{file}:{number}: ends in the middle of a line")
                yield number, line[:-1]
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ServingError(f"{file}: {reason}; name an audit-<replica>.jsonl file") from error


def _claimed(line: bytes) -> object:
    try:
        return json.loads(line)["previous"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _older(path: Path) -> list[tuple[int, Path]]:
    """The numbered files that are there, the oldest (the highest number) first."""
    found = []
    for other in path.parent.iterdir() if path.parent.is_dir() else ():
        number = other.name.removeprefix(f"{path.name}.")
        if number != other.name and re.fullmatch(r"[1-9][0-9]{0,8}", number):
            found.append((int(number), other))
    return sorted(found, reverse=True)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _last_hash(path: Path) -> str:
    """Of the newest whole line in the newest file that has one."""
    newest_first = [path, *(older for _, older in reversed(_older(path)))]
    for file in newest_first:
        with suppress(FileNotFoundError), file.open("rb") as content:
            end = _whole(content.fileno())
            if end:
                with mmap.mmap(content.fileno(), end, access=mmap.ACCESS_READ) as view:
                    line = view[view.rfind(b"\n", 0, end - 1) + 1 : end - 1]
                return hashlib.sha256(line).hexdigest()
    return FIRST


def _whole(file: int) -> int:
    """Bytes up to the end of the last whole line."""
    if not os.fstat(file).st_size:
        return 0
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as view:
        return view.rfind(b"\n") + 1


def _reason(path: Path, error: OSError) -> str:
    if isinstance(error, BlockingIOError):
        return f"{path}: another process writes this audit log; give each replica its own name"
    reason = (error.strerror or str(error)).lower()
    return f"{path}: the audit log cannot be written: {reason}; mend the folder or free some space"
