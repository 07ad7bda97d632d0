"""A bundle is read back as it was built, or refused by the name of what is wrong."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ensemble.bundle import MANIFEST, building, load_bundle
from ensemble.runtime import Runtime
from search.errors import BundleError
from tests.tiny import tiny_image, write_tiny_bundle


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", n_members=1)


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change(path: Path, key: str, value: object, *, seal: bool = False) -> None:
    document = json.loads(path.read_text()) | {key: value}
    if seal:  # as one who knows how would
        del document["digest"]
        text = json.dumps(document, indent=1) + "\n"
        document["digest"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(document, indent=1) + "\n")


def test_a_bundle_read_on_another_path_gives_the_same_probabilities(
    original: Path, bundle: Path
) -> None:
    images = [tiny_image(i) for i in range(3)]
    first, second = (Runtime(load_bundle(folder)).predict(images) for folder in (original, bundle))
    np.testing.assert_array_equal(first.probs, second.probs)
    assert load_bundle(original).manifest.digest == load_bundle(bundle).manifest.digest


@pytest.mark.parametrize("name", ["members/cnn_0.safetensors", "members/cnn_0.onnx", "card.md"])
def test_one_changed_byte_is_named(bundle: Path, name: str) -> None:
    flip_a_byte(bundle / name)
    with pytest.raises(BundleError, match=f"{name}: changed since it was built"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: (b / "card.md").unlink(), r"card.md: missing from the bundle"),
        (lambda b: (b / "extra.pkl").write_bytes(b"\x80\x04."), r"extra.pkl: not listed in bundle"),
        (lambda b: change(b / MANIFEST, "schema_version", 99), "schema 99 is newer than 1"),
        (lambda b: change(b / MANIFEST, "version", "2"), r"bundle.json: changed since"),
        (
            lambda b: change(b / MANIFEST, "classes", 3, seal=True),
            r"bundle.json: classes is not as built",
        ),
        (lambda b: (b / MANIFEST).write_text("{"), "not a bundle's manifest"),
        (lambda b: (b / MANIFEST).unlink(), r"no readable bundle.json"),
        (lambda b: (b / MANIFEST).write_bytes(b"\xff"), r"no readable bundle.json"),
    ],
    ids=["missing", "pickle", "newer", "edited", "malformed", "broken", "absent", "binary"],
)
def test_what_is_not_as_built_is_refused(
    bundle: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(bundle)
    with pytest.raises(BundleError, match=message):
        load_bundle(bundle)


def test_a_changed_byte_of_the_manifest_is_named(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text.replace('"sensitivity": 1.0', '"sensitivity": 1.00', 1))
    with pytest.raises(BundleError, match=r"bundle.json: changed since it was built"):
        load_bundle(bundle)


def test_a_link_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    outside = tmp_path / "card.md"
    shutil.move(bundle / "card.md", outside)
    (bundle / "card.md").symlink_to(outside)
    with pytest.raises(BundleError, match=r"card.md: a link; a bundle holds its files itself"):
        load_bundle(bundle)


def test_a_member_outside_the_bundle_is_refused(bundle: Path) -> None:
    members = json.loads((bundle / MANIFEST).read_text())["members"]
    members[0]["onnx_file"] = "../evil.onnx"
    change(bundle / MANIFEST, "members", members, seal=True)
    with pytest.raises(BundleError, match=r"member file ../evil.onnx is not listed"):
        load_bundle(bundle)


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(BundleError, match="stands in the bundle's place and is none"):
        write_tiny_bundle(tmp_path / "mine", n_members=1)
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
    write_tiny_bundle(bundle, n_members=1, name="newer")
    assert load_bundle(bundle).manifest.name == "newer"
    assert [path.name for path in bundle.parent.iterdir()] == ["tiny"]
