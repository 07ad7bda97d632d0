"""What only the driver reaches: the study's storage, MLflow, the ports."""

import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from cluster.doctor import driver
from cluster.doctor.driver import check_mlflow, check_ports, check_storage
from search.config import load_config
from tests.experiments import write_experiment
from tests.servers import PASSWORD, free_port, postgres


def test_sqlite_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    config = load_config(write_experiment(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    assert "takes writes (only the driver's)" in check_storage(config).seen
    assert sorted(tmp_path.rglob("*")) == before
    file = config.output / "study" / "optuna.db"
    file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE studies (x INTEGER)")
    assert check_storage(config).level == "ok"
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("studies",)]


def test_a_damaged_database_is_broken(tmp_path: Path) -> None:
    config = load_config(write_experiment(tmp_path))
    file = config.output / "study" / "optuna.db"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no database" * 100)
    assert "not a database" in check_storage(config).seen


def test_a_database_that_is_not_there_is_one_line_without_its_password(tmp_path: Path) -> None:
    storage = f"postgresql://me:{PASSWORD}@127.0.0.1:{free_port()}/db"
    finding = check_storage(load_config(write_experiment(tmp_path, storage=storage)))
    assert finding.level == "broken"
    assert "refused" in finding.seen
    assert finding.mend == "mend it or storage in the config"
    assert PASSWORD not in str(finding)


@pytest.mark.slow
def test_postgresql_takes_a_write_that_is_undone(tmp_path: Path) -> None:
    with postgres() as url:
        config = load_config(write_experiment(tmp_path, storage=url))
        assert check_storage(config).level == "ok"
        with psycopg.connect(url) as connection:
            tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
            assert connection.execute(tables).fetchone() == (0,)
            connection.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
        reader = url.replace(f"consilium:{PASSWORD}", "reader:reader")
        finding = check_storage(load_config(write_experiment(tmp_path, storage=reader)))
    assert "permission denied" in finding.seen


def test_an_mlflow_server_that_does_not_answer() -> None:
    assert check_mlflow(None) == []
    (finding,) = check_mlflow(f"http://user:{PASSWORD}@127.0.0.1:{free_port()}")
    assert finding.level == "broken"
    assert PASSWORD not in str(finding)


def test_a_taken_port_is_said_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        monkeypatch.setattr(driver, "PORTS", {taken: "serve", free_port(): "jobs"})
        first, second = check_ports()
    assert (first.level, second.level) == ("ok", "ok")
    assert first.seen == f"{taken} (serve): something listens"
    assert second.seen.endswith("(jobs): free")
