"""A file is either whole or not there."""

import errno
import json
import math
import os
from pathlib import Path

import pytest

from search.atomic import replacing, write_bytes, write_json, write_text


def test_text_is_utf_8_with_the_line_ends_it_has(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "x.txt", "é\r\n\n")
    assert (tmp_path / "new" / "x.txt").read_bytes() == b"\xc3\xa9\r\n\n"


def test_what_is_not_finite_is_null_in_json(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1.5, "b": [math.nan, (math.inf, "c")]})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1.5, "b": [None, [None, "c"]]}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as scratch:
            scratch.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_stays_the_error_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write_bytes(tmp_path / "x", b"x")
    assert list(tmp_path.iterdir()) == []
