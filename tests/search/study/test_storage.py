"""A storage opens by its URL, and says in one line without the password why it does not."""

import os
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import optuna
import psycopg
import pytest
from optuna.storages import RDBStorage
from psycopg import sql
from sqlalchemy import text

from search.errors import ConfigError, StudyError
from search.location import open_place
from search.study.records import StudyFolder
from search.study.storage import open_storage, storage_url
from tests.servers import PASSWORD, free_port, postgres

REMOTE = StudyFolder(open_place("s3://studies/tiny"))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


def url_of(url: str) -> str:
    return storage_url(REMOTE, url)


def refusal(url: str) -> str:
    """What a storage that does not open says: one line, no password."""
    with pytest.raises(StudyError, match=r"^[^\n]+$") as caught:
        open_storage(url)
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def use(storage: RDBStorage) -> int:
    """Create a study, run a trial, close; how many trials there are."""
    study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True)
    study.tell(study.ask(), 1.0)
    count = len(study.get_trials())
    storage.engine.dispose()
    return count


def test_sqlite_lies_in_a_local_study_folder(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "a {b} #c%20d")
    folder.create()
    assert [use(open_storage(storage_url(folder, None))) for _ in range(2)] == [1, 2]
    assert (folder.path / "optuna.db").exists()
    assert folder.disk_use()["storage"] > 0


@pytest.mark.parametrize("storage", [None, "sqlite:///x.db"])
def test_a_remote_study_needs_a_server(storage: str | None) -> None:
    with pytest.raises(ConfigError, match=r"SQLite cannot live on s3://; name a PostgreSQL URL un"):
        storage_url(REMOTE, storage)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_means_its_driver_psycopg(scheme: str, tmp_path: Path) -> None:
    url = storage_url(StudyFolder(tmp_path), f"{scheme}://u@h/d")
    assert url == "postgresql+psycopg://u@h/d"


def test_postgresql_keeps_trials(server: str) -> None:
    assert [use(open_storage(url_of(server))) for _ in range(2)] == [1, 2]


def test_a_lost_connection_is_made_anew(server: str) -> None:
    storage = open_storage(url_of(server))
    study = optuna.create_study(storage=storage, study_name="lost")
    with psycopg.connect(server, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid != pg_backend_pid() AND backend_type = 'client backend'"
        )
    study.tell(study.ask(), 1.0)
    assert len(study.get_trials()) == 1
    storage.engine.dispose()


@pytest.mark.parametrize("by_file", [True, False])
def test_the_password_need_not_be_in_the_url(server: str, tmp_path: Path, by_file: bool) -> None:
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:*:*:*:{PASSWORD}\n")
    file.chmod(0o600)
    given = {"PGPASSFILE": str(file)} if by_file else {"PGPASSWORD": PASSWORD}
    with patch.dict(os.environ, given):
        assert use(open_storage(url_of(server.replace(f":{PASSWORD}", "")))) > 0


def test_a_wrong_password_is_said(server: str) -> None:
    said = refusal(url_of(server.replace(PASSWORD, "wrong-password")))
    assert said.startswith("postgresql://consilium@127.0.0.1:")
    assert "password authentication failed" in said
    assert "wrong-password" not in said


def test_a_missing_database_is_said(server: str) -> None:
    assert 'database "absent" does not exist' in refusal(
        url_of(server.replace("/postgres", "/absent"))
    )


def test_an_unreachable_server_is_said() -> None:
    said = refusal(f"postgresql+psycopg://u:{PASSWORD}@127.0.0.1:{free_port()}/d?password=x")
    assert "onnection refused" in said
    assert "password" not in said


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("postgrespl://u:open-sesame@h/d", "storage postgrespl://: no such database is known"),
        ("postgresql://u:open-sesame@h:port/d", "storage is no database URL"),
        ("optuna.db", "storage is no database URL"),
    ],
)
def test_what_is_no_url_is_said(url: str, rule: str) -> None:
    assert rule in refusal(url_of(url))


@pytest.mark.parametrize(
    ("url", "install"),
    [
        ("postgresql://u@h/d", "pip install 'consilium[postgres]'"),
        ("mysql+pymysql://u@h/d", "its driver pymysql is not installed; pip install it"),
    ],
)
def test_a_missing_driver_is_said(url: str, install: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for driver in ("psycopg", "pymysql"):
        monkeypatch.setitem(sys.modules, driver, None)
    assert install in refusal(url_of(url))


@pytest.mark.parametrize(
    ("version", "rule"), [("v3.0.0.d", "older Optuna"), ("v99", "newer Optuna (v99, here")]
)
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_another_schema_is_said(
    kind: str, version: str, rule: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    if kind == "postgresql":
        server = request.getfixturevalue("server")
        name = f"schema_{version.replace('.', '_')}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        url = url_of(server.replace("/postgres", f"/{name}"))
    storage = open_storage(url)
    with storage.engine.begin() as connection:
        update = text("UPDATE alembic_version SET version_num = :version")
        connection.execute(update, {"version": version})
    storage.engine.dispose()
    assert rule in refusal(url)


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("no database, but long enough to have a header " * 9)
    said = refusal(storage_url(StudyFolder(tmp_path), None))
    assert "optuna.db: file is not a database; mend it or storage in the config" in said


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    said = refusal(storage_url(StudyFolder(tmp_path / "absent"), None))
    assert "unable to open database file" in said


def test_a_locked_database_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.study.storage.SQLITE_WAIT", 0.1)
    url = storage_url(StudyFolder(tmp_path), None)
    use(open_storage(url))
    other = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)
    try:
        other.execute("BEGIN EXCLUSIVE")
        assert "database is locked" in refusal(url)
    finally:
        other.close()
    assert use(open_storage(url)) == 2
