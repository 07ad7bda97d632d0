"""The audit log: a chain of lines that goes on over files, restarts and a full disk."""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from search.errors import ServingError
from serving.config import AuditConfig
from serving.monitor import audit
from serving.monitor.audit import AuditEntry, AuditLog, verify
from serving.problems import ProblemError

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def entry(request_id: str = "r1") -> AuditEntry:
    return AuditEntry(
        request_id=request_id,
        key="ward-3",
        bundle="b" * 64,
        image="a" * 64,
        probabilities={"benign": 0.25, "malignant": 0.75},
        decision="positive",
        operating_point="sensitivity_0.95",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def log(folder: Path) -> Iterator[AuditLog]:
    log = opened(folder)
    yield log
    log.close()


def opened(folder: Path, *, files: int = 3) -> AuditLog:
    config = AuditConfig(folder=folder, files=files, megabytes=1)
    return AuditLog(config, replica="r#0", now=lambda: NOON)


def write(log: AuditLog, count: int) -> None:
    for index in range(count):
        log.write(entry(f"r{index}"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte has 1000 bytes: two lines a file."""
    monkeypatch.setattr(audit, "MEBIBYTE", 1000)


def test_a_line_says_all_and_the_next_names_its_hash(log: AuditLog) -> None:
    write(log, 2)
    first, second = log.path.read_bytes().splitlines()
    assert json.loads(first) == {
        "time": "2026-11-21T12:00:00.000+00:00",
        "kind": "prediction",
        "request_id": "r0",
        "key": "ward-3",
        "bundle": "b" * 64,
        "image": "a" * 64,
        "probabilities": {"benign": 0.25, "malignant": 0.75},
        "decision": "positive",
        "operating_point": "sensitivity_0.95",
        "previous": "0" * 64,
    }
    assert json.loads(second)["previous"] == hashlib.sha256(first).hexdigest()
    assert verify(log.path) == 2


def test_the_folder_and_the_file_are_their_owners_alone(log: AuditLog, folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.path.name == "audit-r-0.jsonl"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda lines: [lines[0].replace(b"0.75", b"0.05"), *lines[1:]], r":2: does not follow"),
        (lambda lines: [lines[0], *lines[2:]], r":2: does not follow"),
        (lambda lines: lines[1:], r":1: does not follow"),
        (lambda lines: [lines[0], lines[0], *lines[1:]], r":2: does not follow"),
        (lambda lines: [lines[1], lines[0], lines[2]], r":1: does not follow"),
        (lambda lines: [lines[0], b"{}\n", *lines[1:]], r":2: does not follow"),
        (lambda lines: [lines[0], b"no JSON\n", *lines[1:]], r":2: does not follow"),
        (lambda lines: [*lines, b"[]\n"], r":4: does not follow"),
        (lambda lines: [*lines, b"{"], r":4: ends in the middle"),
    ],
)
def test_a_changed_file_is_noticed(
    log: AuditLog, change: Callable[[list[bytes]], list[bytes]], place: str
) -> None:
    write(log, 3)
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(change(lines)))
    with pytest.raises(ServingError, match=place):
        verify(log.path)


def test_files_are_bounded_and_the_chain_goes_through_them(small: None, log: AuditLog) -> None:
    for count in range(1, 20):
        log.write(entry(f"r{count}"))
        kept = verify(log.path)
        assert kept == count if count <= 8 else kept in (7, 8)
    names = sorted(path.name for path in log.path.parent.iterdir())
    assert names == [log.path.name, *(f"{log.path.name}.{number}" for number in (1, 2, 3))]
    for path in log.path.parent.iterdir():
        assert path.stat().st_size <= 1000
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_missing_file_between_is_noticed(small: None, log: AuditLog) -> None:
    write(log, 7)
    log.path.with_name(f"{log.path.name}.2").unlink()
    with pytest.raises(ServingError, match=r"\.1:1: does not follow"):
        verify(log.path)


def test_a_first_file_alone_that_is_not_the_beginning_is_noticed(
    small: None, log: AuditLog
) -> None:
    write(log, 3)
    log.path.with_name(f"{log.path.name}.1").unlink()
    with pytest.raises(ServingError, match=r"jsonl:1: does not follow"):
        verify(log.path)


def test_fewer_files_are_kept_once_the_config_says_so(small: None, folder: Path) -> None:
    log = opened(folder, files=3)
    write(log, 8)
    log.close()
    log = opened(folder, files=1)
    write(log, 1)
    log.close()
    assert len(list(folder.iterdir())) == 2
    assert verify(log.path) == 3


def test_the_chain_goes_on_after_a_restart(small: None, folder: Path) -> None:
    for _ in range(5):
        log = opened(folder)
        write(log, 1)
        log.close()
    assert verify(log.path) == 5


def test_the_chain_goes_on_where_a_crash_came_between_two_files(folder: Path) -> None:
    log = opened(folder)
    write(log, 2)
    log.close()
    log.path.rename(f"{log.path}.1")
    assert verify(log.path) == 2
    log = opened(folder)
    write(log, 1)
    log.close()
    assert verify(log.path) == 3


def test_a_torn_line_is_cut_and_the_chain_goes_on(folder: Path) -> None:
    log = opened(folder)
    write(log, 2)
    log.close()
    with log.path.open("ab") as file:
        file.write(b'{"time":"2026')
    log = opened(folder)
    write(log, 1)
    log.close()
    assert verify(log.path) == 3


def test_a_loose_mode_is_mended(folder: Path) -> None:
    folder.mkdir()
    (folder / "audit-r-0.jsonl").touch(0o666)
    log = opened(folder)
    log.close()
    assert log.path.stat().st_mode & 0o777 == 0o600


def unavailable(log: AuditLog) -> None:
    with pytest.raises(ProblemError, match=r"no answer is given without it") as refusal:
        log.write(entry("lost"))
    assert (refusal.value.status, refusal.value.code) == (503, "audit_unavailable")
    assert "Retry-After" in refusal.value.headers
    assert str(log.path.parent) not in refusal.value.detail


def test_a_folder_that_goes_away_is_503_until_it_is_back(
    log: AuditLog, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(log, 2)
    away = folder.rename(folder.with_name("away"))
    with caplog.at_level(logging.ERROR, "consilium.audit"):
        for _ in range(3):
            unavailable(log)
    assert not folder.exists()  # a folder of root's on the mount point would hide the loss
    (record,) = caplog.records
    assert "the audit log cannot be written: no such file" in record.getMessage()
    away.rename(folder)
    write(log, 1)
    assert verify(log.path) == 3


def test_a_deleted_log_does_not_swallow_lines(log: AuditLog, folder: Path) -> None:
    write(log, 2)
    shutil.rmtree(folder)
    unavailable(log)
    folder.mkdir()
    write(log, 1)
    assert len(log.path.read_bytes().splitlines()) == 1
    with pytest.raises(ServingError, match=r":1: does not follow"):
        verify(log.path)


@pytest.mark.parametrize("taken", [0, 40])
def test_a_full_disk_is_503_and_leaves_no_half_line(
    log: AuditLog, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    write(log, 2)
    whole = log.path.read_bytes()
    really = os.write

    def full(file: int, line: bytes) -> int:
        if not taken:
            raise OSError(28, "No space left on device")
        return really(file, line[:taken])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        unavailable(log)
        assert log.path.read_bytes() == whole
    write(log, 1)
    assert verify(log.path) == 3


def test_lines_of_many_threads_make_one_chain(small: None, folder: Path) -> None:
    log = opened(folder, files=100)
    threads = [threading.Thread(target=write, args=(log, 25)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert verify(log.path) == 100


def test_two_processes_do_not_write_one_file(log: AuditLog) -> None:
    with pytest.raises(ServingError, match=r"another process writes this audit log; give each"):
        opened(log.path.parent)


def test_the_lock_ends_with_its_process(folder: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from serving.config import AuditConfig;"
        "from serving.monitor.audit import AuditLog;"
        "AuditLog(AuditConfig(folder=Path(sys.argv[1])), replica='r#0'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode == 9
    opened(folder).close()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServingError, match=r"cannot be written: .*; mend the folder") as refusal:
        opened(tmp_path / "file" / "audit")
    assert "\n" not in str(refusal.value)


def test_a_link_in_the_files_place_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (tmp_path / "target").write_text("precious")
    (folder / "audit-r-0.jsonl").symlink_to(tmp_path / "target")
    with pytest.raises(ServingError, match=r"cannot be written"):
        opened(folder)
    assert (tmp_path / "target").read_text() == "precious"


def test_verifying_what_is_not_there_is_one_line(folder: Path) -> None:
    with pytest.raises(ServingError, match=r"no such file.*; name an audit-<replica>.jsonl file"):
        verify(folder / "audit-x.jsonl")
