"""At most one search works on a study: locks that the system releases when a search dies."""

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from search.errors import StudyError
from search.study.records import StudyFolder
from search.study.storage import engine_options, shown, words_of

# A host that goes away without a word is noticed, and its lock released, within half a minute.
SETTINGS = {
    "tcp_keepalives_idle": 10,
    "tcp_keepalives_interval": 5,
    "tcp_keepalives_count": 3,
    "idle_session_timeout": 0,
}
LOST_WITHIN = 30.0  # seconds that a held lock may still be of a host that is gone


@contextmanager
def one_search(
    folder: StudyFolder, url: str, *, say: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Hold a study, by a file in its local folder and by its PostgreSQL server, where it has these.

    Args:
        url: of the storage, as `storage_url` gives it.
        say: hears that it waits, as a lost host may hold the study for half a minute.

    Raises:
        StudyError: another search works on it, or the server cannot be reached.
    """
    busy = StudyError(f"{folder.path}: another search works on this study; wait for it or stop it")
    with ExitStack() as held:
        if isinstance(folder.path, Path):
            try:
                held.enter_context(FileLock(folder.path / "lock", timeout=0))
            except Timeout as error:
                raise busy from error
        if make_url(url).get_backend_name() == "postgresql" and not held.enter_context(
            _advisory_lock(url, key_of(folder), say)
        ):
            raise busy
        yield


def key_of(folder: StudyFolder) -> int:
    """64 bits that stand for a study; one database may hold those of many hosts."""
    host = socket.gethostname() if isinstance(folder.path, Path) else ""
    digest = hashlib.sha256(f"consilium {host} {folder.path}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


@contextmanager
def _advisory_lock(url: str, key: int, say: Callable[[str], None]) -> Iterator[bool]:
    """Whether the lock was free; it is held as long as its session, which dies with the process."""
    where = shown(url)
    options = {**engine_options(url), "isolation_level": "AUTOCOMMIT", "poolclass": NullPool}
    options.pop("pool_pre_ping")
    with ExitStack() as session:
        try:
            connection = session.enter_context(create_engine(url, **options).connect())
            for setting, value in SETTINGS.items():
                connection.execute(text(f"SET {setting} = {value}"))
            end = time.monotonic() + LOST_WITHIN
            if not (free := _try(connection, key)):
                say("another search holds this study, or did until its host was lost: waiting")
            while not free and time.monotonic() < end:
                time.sleep(1)
                free = _try(connection, key)
        except SQLAlchemyError as error:
            raise StudyError(
                f"{where}: {words_of(error)}; mend it or storage in the config"
            ) from error
        yield free


def _try(connection: Connection, key: int) -> bool:
    return bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))
