"""Checks on the machine that leads: the study's storage, MLflow, the ports."""

import socket
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from cluster.doctor.findings import Finding, refused
from cluster.doctor.measure import existing
from cluster.doctor.places import PROBE
from search.config import ExperimentConfig

PORTS = {8000: "serve", 8265: "dashboard and jobs", 6379: "Ray's head", 10001: "Ray Client"}
STORAGE = "study storage"


def check_driver(config: ExperimentConfig) -> list[Finding]:
    """What only the driver reaches."""
    return [check_storage(config), *check_mlflow(config.tracking.mlflow)]


def check_storage(config: ExperimentConfig) -> Finding:
    """Whether the Optuna storage takes a write, which is undone; only the driver writes there."""
    from search.study.records import StudyFolder
    from search.study.storage import is_sqlite, shown, storage_url

    found: list[Finding] = []
    mend = "mend storage in the config; PGPASSWORD or PGPASSFILE hold a password"
    with refused(STORAGE, mend, found):
        url = storage_url(StudyFolder(config.study_folder), config.storage)
        where = shown(url)
        if is_sqlite(url):
            _write_sqlite(Path(where))
        else:
            _write_table(url)
        found.append(Finding(STORAGE, "ok", f"{where}: takes writes (only the driver's)"))
    return found[0]


def _write_sqlite(file: Path) -> None:
    if not file.is_file():  # opening would make it
        probe = existing(file.parent) / f"{PROBE}-{uuid.uuid4().hex}"
        probe.touch(exist_ok=False)
        probe.unlink()
        return
    with closing(sqlite3.connect(file, timeout=5, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        database.execute(f"CREATE TABLE doctor_{uuid.uuid4().hex} (x INTEGER)")
        database.execute("ROLLBACK")


def _write_table(url: str) -> None:
    """Make a table, fill it and take it back.

    Raises:
        StudyError: without the password.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    from search.errors import StudyError
    from search.study.storage import engine_options, shown, words_of

    name = f"doctor_{uuid.uuid4().hex}"
    try:
        engine = create_engine(url, **engine_options(url))
        try:
            with engine.connect() as connection:
                connection.execute(text(f"CREATE TABLE {name} (x INTEGER)"))
                connection.execute(text(f"INSERT INTO {name} VALUES (1)"))  # noqa: S608
                connection.execute(text(f"DROP TABLE {name}"))
                connection.rollback()
        finally:
            engine.dispose()
    except ImportError as error:
        raise StudyError(
            f"{shown(url)}: its driver is not installed; pip install 'consilium[postgres]'"
        ) from error
    except SQLAlchemyError as error:
        words = words_of(error).replace("; ", ", ")
        raise StudyError(f"{shown(url)}: {words}; mend it or storage in the config") from error


def check_mlflow(uri: str | None) -> list[Finding]:
    """Whether an MLflow server answers; a file or database is not asked."""
    if uri is None:
        return []
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return [Finding("MLflow", "ok", f"{parts.scheme or 'a folder'}: not a server, not asked")]
    import httpx

    where = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    found: list[Finding] = []
    with refused("MLflow", f"start it at {where}, or mend tracking.mlflow", found):
        status = httpx.get(f"{uri.rstrip('/')}/health", timeout=5).status_code
        well, mend = status == 200, f"{where} is no MLflow server, or refuses; mend tracking.mlflow"
        found.append(
            Finding("MLflow", "ok" if well else "broken", f"{status}", "" if well else mend)
        )
    return found


def check_ports() -> Iterator[Finding]:
    """Which of the usual ports are taken: only to be known."""
    for port, what in PORTS.items():
        with socket.socket() as probe:
            probe.settimeout(1)
            taken = probe.connect_ex(("127.0.0.1", port)) == 0
        seen = f"{port} ({what}): " + ("something listens" if taken else "free")
        yield Finding("port", "ok", seen)


@contextmanager
def marked(config: ExperimentConfig) -> Iterator[str | None]:
    """A file beside a local study, by which nodes tell whether they share the folder."""
    place = config.study_folder
    if not isinstance(place, Path):
        yield None
        return
    file = existing(place) / f"{PROBE}-{uuid.uuid4().hex}"
    try:
        file.touch(exist_ok=False)
    except OSError:  # which the check of the study place says better
        yield None
        return
    try:
        yield file.name
    finally:
        file.unlink(missing_ok=True)
