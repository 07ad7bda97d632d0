"""A bundle knows the images that it was made from."""

import hashlib
from pathlib import Path

import pytest

from ensemble.seen import FILE, seen_among, write_seen
from search.errors import BundleError


def test_files_are_known_by_their_content(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in ("a", "c")]
    write_seen(tmp_path, digests)
    (tmp_path / "copy").write_text("a")
    paths = [tmp_path / name for name in ("a", "b", "copy", "missing")]
    assert seen_among(tmp_path, paths).tolist() == [True, False, True, False]


def test_a_damaged_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("no")
    with pytest.raises(BundleError, match=r"seen.safetensors: cannot be read; build the bundle"):
        seen_among(tmp_path, [])
