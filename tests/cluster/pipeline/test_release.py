"""Releases never change, and are whole or not there."""

from pathlib import Path

import pytest

from cluster.pipeline import release as releases
from cluster.pipeline.release import find_release, release, release_name
from ensemble.bundle import Bundle, load_bundle
from search.errors import BundleError
from tests.tiny import write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("release") / "b", n_members=1))


def test_a_release_is_the_bundle_under_its_name_and_digest(bundle: Bundle, tmp_path: Path) -> None:
    made = release(bundle, tmp_path)
    assert made.folder == tmp_path / f"tiny-{bundle.manifest.digest[:12]}"
    assert made.manifest == bundle.manifest
    assert find_release(tmp_path, bundle.manifest.digest) == made.folder
    assert find_release(tmp_path, "f" * 64) is None


def test_one_that_is_there_is_kept_untouched(bundle: Bundle, tmp_path: Path) -> None:
    folder = release(bundle, tmp_path).folder
    inode = (folder / "bundle.json").stat().st_ino
    assert release(bundle, tmp_path).folder == folder
    assert (folder / "bundle.json").stat().st_ino == inode


def test_a_damaged_one_is_refused_and_left(bundle: Bundle, tmp_path: Path) -> None:
    folder = release(bundle, tmp_path).folder
    (folder / "card.md").write_text("otherwise")
    with pytest.raises(BundleError, match=r"card.md: changed .* the release is damaged: take"):
        release(bundle, tmp_path)
    assert (folder / "card.md").read_text() == "otherwise"


def test_a_copy_that_fails_half_way_leaves_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(releases, "_settle", full)
        with pytest.raises(OSError, match=r"No space left"):
            release(bundle, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_rest_of_a_copy_that_was_killed_is_taken_away(bundle: Bundle, tmp_path: Path) -> None:
    scratch = tmp_path / f".{release_name(bundle)}.tmp"
    scratch.mkdir()
    (scratch / "half").write_text("")
    release(bundle, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [release_name(bundle)]
