"""The Optuna storage: SQLite in a local study folder, PostgreSQL for what many hosts reach.

SQLite keeps its own defaults, a rollback journal synced at every commit. One driver writes, so this
costs tens of milliseconds a trial and a killed process loses nothing. A write-ahead log would save
half of that, but does not work on network file systems, and without its second file the database
lacks the last trials.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from search.errors import ConfigError, StudyError
from search.study.records import StudyFolder

SQLITE_WAIT = 30.0  # seconds for a report's reading to end
# A server that is away is said within seconds, one that goes away within a minute and a half.
LIBPQ = {
    "connect_timeout": 5,
    "client_encoding": "utf8",  # a server made in the C locale has none
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
}


def storage_url(folder: StudyFolder, storage: str | None) -> str:
    """SQLAlchemy's URL of a study's storage.

    Args:
        storage: the config's, any RDB URL; None is SQLite in the folder.

    Raises:
        ConfigError: the folder is in an object store and the storage is no server.
    """
    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", storage or "")
    local = isinstance(folder.path, Path)
    if not local and (not url or is_sqlite(url)):
        scheme = str(folder.path).partition("://")[0]
        raise ConfigError(f"SQLite cannot live on {scheme}://; name a PostgreSQL URL under storage")
    file = URL.create("sqlite", database=str(folder.path / "optuna.db"))
    return url or file.render_as_string()


def open_storage(url: str) -> RDBStorage:
    """Open a storage, or create its tables.

    No URL needs a password: libpq takes PGPASSWORD, or the file that PGPASSFILE names.

    Raises:
        StudyError: not reached within seconds, not allowed, no such database, no database at all,
            no driver for it, or an Optuna schema that is not this Optuna's. It shows no password.
    """
    where = shown(url)
    try:
        # Optuna fills in a {SCHEMA_VERSION}; a password may have braces of its own.
        filled = url.replace("{", "{{").replace("}", "}}")
        storage = RDBStorage(filled, engine_options(url), skip_compatibility_check=True)
    except ImportError as error:
        raise StudyError(f"{where}: {_missing_driver(url)}") from error
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StudyError(f"{where}: {words_of(error)}; mend it or storage in the config") from error
    try:
        _check_schema(storage, where)
    except StudyError:
        storage.engine.dispose()
        raise
    return storage


def engine_options(url: str) -> dict[str, Any]:
    """What SQLAlchemy's create_engine is to know besides the URL."""
    if is_sqlite(url):
        return {"connect_args": {"timeout": SQLITE_WAIT}}
    libpq = make_url(url).get_driver_name().startswith("psycopg")
    return {"pool_pre_ping": True, "connect_args": LIBPQ if libpq else {}}


def is_sqlite(url: str) -> bool:
    return url.startswith("sqlite")


@contextmanager
def opened_storage(url: str) -> Iterator[RDBStorage]:
    """A storage whose connections are closed in the end; see `open_storage`."""
    storage = open_storage(url)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def without_password(url: str) -> str:
    """The same URL, to be written down; PGPASSWORD, say, holds what is left out."""
    bare = (
        make_url(url)._replace(password=None).difference_update_query(["password", "sslpassword"])
    )
    return bare.render_as_string(hide_password=False)


def shown(url: str) -> str:
    """A storage's URL without its password, options and driver; the path of SQLite's file.

    Raises:
        StudyError: it is no URL, or of a database unknown to SQLAlchemy.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        parsed.get_dialect()
    except NoSuchModuleError as error:
        raise StudyError(
            f"storage {backend}://: no such database is known; name a postgresql:// URL"
        ) from error
    except (ArgumentError, ValueError) as error:
        raise StudyError(
            "storage is no database URL; write postgresql://user@host:5432/database, with special "
            "characters of a password percent-encoded"
        ) from error
    if backend == "sqlite":
        return str(parsed.database)
    return URL.create(
        backend, parsed.username, None, parsed.host, parsed.port, parsed.database
    ).render_as_string()


def words_of(error: BaseException) -> str:
    """What the database's driver says, in one line."""
    wrapped = error.__cause__ if isinstance(error, StorageInternalError) else error
    said = getattr(wrapped, "orig", None) or wrapped
    return " ".join(str(said).split())[:300]


def _missing_driver(url: str) -> str:
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return "its driver is not installed; pip install 'consilium[postgres]'"
    return f"its driver {parsed.get_driver_name()} is not installed; pip install it"


def _check_schema(storage: RDBStorage, where: str) -> None:
    current, head = storage.get_current_version(), storage.get_head_version()
    if current == head:
        return
    if current in storage.get_all_versions():
        raise StudyError(
            f"{where}: written by an older Optuna ({current}, here {head}); "
            "run optuna storage upgrade --storage URL, or name another database"
        )
    raise StudyError(
        f"{where}: written by a newer Optuna ({current}, here {head}); pip install -U optuna"
    )
