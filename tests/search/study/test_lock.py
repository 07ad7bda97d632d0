"""At most one search works on a study, and a dead one holds nothing."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from search.errors import StudyError
from search.location import open_place
from search.study import lock
from search.study.lock import one_search
from search.study.records import StudyFolder
from search.study.storage import storage_url
from tests.servers import free_port, postgres

REMOTE = StudyFolder(open_place("s3://studies/tiny"))
BUSY = r"another search works on this study; wait for it or stop it"
HOLD = """
import sys, time
from search.location import open_place
from search.study import lock
from search.study.lock import one_search
from search.study.records import StudyFolder
with one_search(StudyFolder(open_place(sys.argv[1])), sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield storage_url(REMOTE, url)


@contextmanager
def another_search(folder: StudyFolder, url: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds a study."""
    command = [sys.executable, "-c", HOLD, str(folder.path), url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def assert_free_soon(folder: StudyFolder, url: str) -> None:
    for _ in range(100):
        try:
            with one_search(folder, url):
                return
        except StudyError:
            time.sleep(0.05)
    pytest.fail("the lock was not released")


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is held is refused at once, as if its holder were surely alive."""
    monkeypatch.setattr(lock, "LOST_WITHIN", 0.0)


def test_a_lock_whose_holder_is_gone_is_waited_for(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LOST_WITHIN", 60.0)
    with another_search(REMOTE, server) as process:
        killer = threading.Timer(1.0, process.kill)
        killer.start()
        said: list[str] = []
        with one_search(REMOTE, server, say=said.append):
            killer.join()
            assert process.wait(10) != 0
        assert len(said) == 1


def test_a_local_study_is_held_by_its_folder(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    url = storage_url(folder, None)
    with one_search(folder, url):
        with pytest.raises(StudyError, match=BUSY), one_search(folder, url):
            pytest.fail("held twice")
        with one_search(StudyFolder(tmp_path / "other"), url):
            pass
    assert_free_soon(folder, url)


def test_a_remote_study_is_held_by_its_storage(server: str) -> None:
    with one_search(REMOTE, server):
        busy = pytest.raises(StudyError, match=r"^s3://studies/tiny: " + BUSY)
        with busy, one_search(REMOTE, server):
            pytest.fail("held twice")
        with one_search(StudyFolder(open_place("s3://studies/other")), server):
            pass
    assert_free_soon(REMOTE, server)


def test_a_local_study_on_a_server_is_held_by_both(server: str, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    with one_search(folder, server):
        with pytest.raises(StudyError, match=BUSY), one_search(folder, "sqlite://"):
            pytest.fail("the file was free")
        (tmp_path / "lock").unlink()
        with pytest.raises(StudyError, match=BUSY), one_search(folder, server):
            pytest.fail("the server's lock was free")


def test_what_goes_wrong_inside_releases_it(server: str, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="stop"), one_search(folder, server):
        raise KeyboardInterrupt("stop")
    assert_free_soon(folder, server)


@pytest.mark.parametrize("remote", [True, False])
def test_a_killed_search_holds_nothing(remote: bool, server: str, tmp_path: Path) -> None:
    folder = REMOTE if remote else StudyFolder(tmp_path)
    url = server if remote else storage_url(folder, None)
    with another_search(folder, url) as process:
        with pytest.raises(StudyError, match=BUSY), one_search(folder, url):
            pytest.fail("held twice")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert_free_soon(folder, url)


def test_a_server_that_drops_the_lock_does_not_break_the_end_of_a_search(server: str) -> None:
    plain = server.replace("+psycopg", "")
    with one_search(REMOTE, server), psycopg.connect(plain, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    assert_free_soon(REMOTE, server)


def test_a_server_that_is_away_is_said() -> None:
    url = f"postgresql+psycopg://u:secret@127.0.0.1:{free_port()}/d"
    away = pytest.raises(StudyError, match=r"^postgresql://u@127.0.0.1:\d+/d: .*refused")
    with away as caught, one_search(REMOTE, url):
        pytest.fail("held without a server")
    assert "secret" not in str(caught.value)
