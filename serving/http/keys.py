"""API keys: a file of hashes, read again when it changes.

A key is `con_<id>_<secret>`; the file holds the SHA-256 of a salt and the secret. A slow hash
(bcrypt, argon2) protects what people choose; 256 random bits cannot be guessed from a fast one
either, and a slow one would cost every request.
"""

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from search.atomic import replacing
from search.errors import ServingError
from search.params import Config
from serving.problems import ProblemError

Scope = Literal["predict", "admin"]
CHECK_S = 1.0  # between two looks at the file
MAX_FILE_BYTES = 1 << 20
MAX_KEY_BYTES = 128  # the longest key has 80
ID = re.compile(r"[a-z0-9-]{1,32}")
Sight = tuple[int, int, int, int]  # what changes with the file
log = logging.getLogger("consilium.keys")


class Key(Config):
    """One line of the file."""

    id: str = Field(pattern=r"^[a-z0-9-]{1,32}$")
    scopes: list[Scope] = Field(min_length=1, max_length=2, description="admin implies predict")
    salt: str = Field(pattern=r"^[0-9a-f]{32}$", repr=False)
    hash: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False, description="of salt and secret")
    created: date


KEYS = TypeAdapter(list[Key])


class _Ring:
    """The keys of one reading of the file, and those of them that were shown and right."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = {key.id.encode(): key for key in keys}
        self._hashes = {
            name: (bytes.fromhex(key.salt), bytes.fromhex(key.hash))
            for name, key in self._keys.items()
        }
        self._decoy = os.urandom(16), os.urandom(32)
        self._verified: dict[bytes, Key] = {}  # by the key's digest; at most one each

    def find(self, shown: bytes) -> Key | None:
        digest = hashlib.sha256(shown).digest()
        known = self._verified.get(digest)
        if known is not None:
            return known
        found = self._compare(shown)
        if found is not None:
            self._verified[digest] = found
        return found

    def _compare(self, shown: bytes) -> Key | None:
        prefix, _, rest = shown.partition(b"_")
        name, _, secret = rest.partition(b"_")
        salt, kept = self._hashes.get(name, self._decoy)  # an unknown id costs the same
        same = hmac.compare_digest(hashlib.sha256(salt + secret).digest(), kept)
        return self._keys.get(name) if same and prefix == b"con" else None


class KeyRing:
    """Who may ask for what, by a file that may change while the service answers.

    Args:
        path: the file, as add_key writes it, or a YAML list of the same.
        say: told in one line when a changed file cannot be used; the keys before it stay.
        clock: seconds, monotonic.

    Raises:
        ServingError: the file is missing, unreadable, malformed, without a key, or others than
            its owner may write it.
    """

    def __init__(
        self,
        path: Path,
        *,
        say: Callable[[str], object] = log.warning,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._say, self._clock = path, say, clock
        self._seen: Sight | None
        self._seen, keys = _read(path)
        if not keys:
            raise ServingError(f"{path}: no key in it; make one with consilium key add")
        self._ring = _Ring(keys)
        self._next_look = clock() + CHECK_S

    def authorise(self, header_value: bytes | None, scope: Scope) -> str:
        """The id of the key that a request shows.

        Args:
            header_value: of Authorization (Bearer) or of X-API-Key; None where neither came.

        Raises:
            ProblemError: 401 without a valid key, 403 where its scopes do not reach.
        """
        self._look()
        if not header_value:
            raise _unauthenticated("no API key; send Authorization: Bearer KEY, or X-API-Key: KEY")
        is_bearer = header_value[:7].lower() == b"bearer "
        shown = header_value[7:].strip() if is_bearer else header_value
        key = self._ring.find(shown) if len(shown) <= MAX_KEY_BYTES else None
        if key is None:
            raise _unauthenticated("the API key is not valid; ask who runs the service for one")
        if scope not in key.scopes and "admin" not in key.scopes:
            raise ProblemError(
                403,
                "forbidden",
                f"key {key.id} has the scope {' and '.join(key.scopes)}; this needs {scope}",
            )
        return key.id

    def _look(self) -> None:
        """Read the file again where it changed; a file that cannot be used changes nothing."""
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + CHECK_S
        try:
            seen = _marks(self._path.stat())
        except OSError:
            seen = None
        if seen == self._seen:
            return
        self._seen = seen  # or a bad file would be read and reported each second
        try:
            self._seen, keys = _read(self._path)
        except ServingError as error:
            self._say(f"{error}; the keys read before stay in force")
            return
        # A list without a key, unlike a file that cannot be read, is meant: all are revoked.
        self._ring = _Ring(keys)
        self._say(f"{self._path}: keys read again; {len(keys)} in force")


def add_key(path: Path, name: str, scopes: Sequence[Scope]) -> str:
    """Make a key and keep its hash; the file is made where there is none, its owner's alone.

    Returns:
        The key; it can be shown this once only.

    Raises:
        ServingError: the id is taken or no id, no scope is given, or the file cannot be used.
    """
    if not ID.fullmatch(name):
        raise ServingError(f"{name[:40]!r}: an id has 1 to 32 of a-z, 0-9 and -; choose another")
    if not scopes:
        raise ServingError(f"key {name} has no scope; give it predict or admin")
    with _changing(path):
        keys = list_keys(path) if path.exists() else []
        if any(key.id == name for key in keys):
            raise ServingError(f"{path}: key {name} is there already; remove it or choose another")
        secret, salt = secrets.token_urlsafe(32), os.urandom(16)
        key = Key(
            id=name,
            scopes=list(dict.fromkeys(scopes)),
            salt=salt.hex(),
            hash=hashlib.sha256(salt + secret.encode()).hexdigest(),
            created=datetime.now(UTC).date(),
        )
        _write(path, [*keys, key])
    return f"con_{name}_{secret}"


def remove_key(path: Path, name: str) -> None:
    """Take a key out of the file; services that read it refuse the key within a second or so.

    Raises:
        ServingError: there is no such key, or the file cannot be used.
    """
    with _changing(path):
        keys = list_keys(path)
        left = [key for key in keys if key.id != name]
        if len(left) == len(keys):
            known = ", ".join(key.id for key in keys) or "none"
            raise ServingError(f"{path}: no key {name[:40]!r}; there are {known}")
        _write(path, left)


def list_keys(path: Path) -> list[Key]:
    """The keys of a file in the order they were made; no secret is in it.

    Raises:
        ServingError: the file cannot be used.
    """
    return _read(path)[1]


def _marks(status: os.stat_result) -> Sight:
    """With ctime, so that a mended mode is noticed too."""
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _read(path: Path) -> tuple[Sight, list[Key]]:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            text = file.read(MAX_FILE_BYTES + 1) if stat.S_ISREG(status.st_mode) else None
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise ServingError(f"{path}: {reason}; name a file that consilium key add made") from error
    if text is None:
        raise ServingError(f"{path}: no regular file; name one that consilium key add made")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ServingError(f"{path}: others than its owner may write it; chmod go-w it")
    if len(text) > MAX_FILE_BYTES:
        raise ServingError(f"{path}: more than {MAX_FILE_BYTES} bytes; remove keys")
    return _marks(status), _parse(path, text)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would be waited on for ever


def _parse(path: Path, text: bytes) -> list[Key]:
    """Messages name places and rules, never what stands there."""
    try:
        try:
            document = json.loads(text)  # what add_key writes: many times faster than YAML
        except ValueError:
            document = yaml.safe_load(text)
        keys = KEYS.validate_python(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_context=False, include_url=False)[0]
        entry = [f": entry {part + 1}" for part in first["loc"][:1] if isinstance(part, int)]
        # An unknown field's name is left out: it may be a secret in the wrong place.
        field = [f": {part}" for part in first["loc"] if part in Key.model_fields]
        where = "".join([str(path), *entry, *field])
        problem = f"{where}: {first['msg'].lower()}"
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = f"{path}{f':{mark.line + 1}' if mark else ''}: neither YAML nor JSON"
    else:
        twice = next((a.id for i, a in enumerate(keys) if a.id in {b.id for b in keys[:i]}), None)
        if twice is None:
            return keys
        problem = f"{path}: key {twice} is there twice"
    raise ServingError(f"{problem}; mend the file, or make one with consilium key add")


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One change of the file at a time, on this machine; OSErrors become one line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # let go with the descriptor
            yield
        finally:
            os.close(folder)
    except OSError as error:
        reason = (error.strerror or "cannot be written").lower()
        raise ServingError(f"{path}: {reason}; choose a file that you may write") from error


def _write(path: Path, keys: Sequence[Key]) -> None:
    """One key a line, as JSON, which is YAML too; mode and owner of a file that is there stay."""
    lines = ",\n ".join(key.model_dump_json() for key in keys)
    target = path.resolve()
    before = target.stat() if target.exists() else None
    with replacing(target) as scratch:
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123
            if before is not None:
                with suppress(PermissionError):  # only root may give a file away
                    os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.write(f"[\n {lines}\n]\n")
            file.flush()
            os.fsync(descriptor)


def _unauthenticated(detail: str) -> ProblemError:
    return ProblemError(401, "unauthenticated", detail, headers={"WWW-Authenticate": "Bearer"})
