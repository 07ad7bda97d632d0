"""A bundle is read back as it was built, or refused by the name of what is wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ensemble.bundle import MANIFEST, building, load_bundle
from search.errors import BundleError
from tests.ensemble.doubling import GRAPH, WEIGHTS, change, refused, write_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny")


def test_a_bundle_is_read_on_another_path_as_it_was_built(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "elsewhere" / "other")
    first, second = (load_bundle(f).manifest for f in (bundle, tmp_path / "elsewhere" / "other"))
    assert first == second
    assert first.digest == second.digest != ""
    assert set(first.files) == {"card.md", "golden/probs.json", "metrics.json", GRAPH, WEIGHTS}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: (b / "card.md").unlink(), r"card.md: missing from the bundle"),
        (lambda b: (b / "extra.md").write_text("x"), r"extra.md: not listed in bundle.json"),
        (lambda b: (b / "extra.pkl").write_bytes(b"\x80\x04."), r"extra.pkl: not listed in"),
        (lambda b: change(b, "schema_version", 99), "schema 99 is newer than 2"),
        (
            lambda b: change(b, "schema_version", 1),
            "schema 1 is older than 2; build the bundle again with consilium ensemble",
        ),
        (lambda b: change(b, "version", "2"), r"bundle.json: changed since"),
        (lambda b: change(b, "classes", 3, seal=True), r"bundle.json: classes is not as built"),
        (lambda b: (b / MANIFEST).write_text("{"), "not a bundle's manifest"),
        (lambda b: (b / MANIFEST).write_text("[" * 100_000), "not a bundle's manifest"),
        (lambda b: change(b, "schema_version", float("inf")), "not a bundle's manifest"),
        (lambda b: (b / MANIFEST).unlink(), r"no readable bundle.json"),
        (lambda b: (b / MANIFEST).write_bytes(b"\xff"), r"no readable bundle.json"),
    ],
    ids=[
        "missing", "extra", "pickle", "newer", "older", "edited", "malformed", "broken", "deep",
        "infinite", "absent", "binary",
    ],
)  # fmt: skip
def test_what_is_not_as_built_is_refused(
    bundle: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(bundle)
    refused(bundle, message)


def test_a_changed_byte_of_the_manifest_is_named(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text.replace('"sensitivity": 1.0', '"sensitivity": 1.00', 1))
    refused(bundle, r"bundle.json: changed since it was built")


def test_a_manifest_too_large_is_refused_unread(bundle: Path) -> None:
    with (bundle / MANIFEST).open("r+b") as file:
        file.truncate(32 * 2**20 + 1)  # sparse: it takes no room
    refused(bundle, r"bundle.json: larger than 32 MB")


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(BundleError, match="stands in the bundle's place and is none"):
        write_bundle(tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "letter.txt"]


def test_operating_points_go_by_name(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    first, named = loaded.operating_point(), loaded.operating_point("balanced")
    assert first is not None
    assert named is not None
    assert (first.name, named.threshold) == ("sensitivity_0.95", 0.5)
    assert loaded.decide(np.array([0.6, 0.4]), first) == "positive"
    assert loaded.decide(np.array([0.6, 0.4]), named) == "negative"
    assert loaded.decide(np.array([0.6, 0.4]), None) is None
    with pytest.raises(BundleError, match="no operating point 'x'; this bundle has sensitivity"):
        loaded.operating_point("x")


def test_a_failed_build_leaves_the_old_bundle(bundle: Path) -> None:
    before = load_bundle(bundle).manifest

    def fail() -> None:
        with building(bundle) as scratch:
            (scratch / "half").write_text("half")
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        fail()
    assert load_bundle(bundle).manifest == before
    assert [path.name for path in bundle.parent.iterdir()] == ["tiny"]


def test_a_new_build_replaces_the_old_bundle(bundle: Path) -> None:
    write_bundle(bundle, name="newer")
    assert load_bundle(bundle).manifest.name == "newer"
    assert [path.name for path in bundle.parent.iterdir()] == ["tiny"]
