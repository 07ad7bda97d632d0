import base64
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ensemble.bundle import MANIFEST, Bundle, load_bundle
from ensemble.manifest import Manifest
from ensemble.torch_engine import load_classifier
from search.data.transforms import prepare
from search.errors import BundleError, ServingError
from serving.explain import gradcam
from serving.explain.explainer import Explainer
from serving.explain.gradcam import explain_network
from serving.explain.overlay import as_rows, pool_maps
from serving.problems import ProblemError
from serving.schemas import Explanation
from tests.serving.explain.networks import output_of
from tests.tiny import tiny_bytes, tiny_image, write_tiny_bundle

IMAGE = tiny_bytes(3)


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("explained") / "bundle"))


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(max_pixels=10_000)


def rewritten(bundle: Bundle, folder: Path, **changes: object) -> Bundle:
    """The same files under a changed manifest."""
    for name in bundle.manifest.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((bundle.folder / name).read_bytes())
    manifest = Manifest.model_validate({**bundle.manifest.model_dump(), **changes})
    (folder / MANIFEST).write_text(manifest.sealed_text())
    return load_bundle(folder)


def own_map(bundle: Bundle, member: int, class_index: int) -> NDArray[np.float32]:
    described = bundle.manifest.members[member]
    pixels = prepare(tiny_image(3), described.preprocessing)
    return explain_network(load_classifier(bundle, described), pixels, class_index)


@pytest.mark.parametrize(("index", "class_name"), [(0, "benign"), (1, "malignant")])
def test_an_explanation_is_that_of_the_members_and_of_all_of_them(
    bundle: Bundle, explainer: Explainer, index: int, class_name: str
) -> None:
    answer = explainer.explain(IMAGE, str(bundle.folder), bundle.manifest.digest, class_name, None)
    maps = {f"cnn_{member}": own_map(bundle, member, index) for member in (0, 1)}
    assert any(heat.any() for heat in maps.values())
    assert answer["class_name"] == class_name
    assert answer["members"] == {name: as_rows(heat) for name, heat in maps.items()}
    assert answer["map"] == as_rows(pool_maps(maps, dict.fromkeys(maps, 0.5)))


def test_an_explanation_is_the_schemas_and_plain_json(bundle: Bundle, explainer: Explainer) -> None:
    answer = explainer.explain(IMAGE, str(bundle.folder), bundle.manifest.digest)
    explanation = Explanation.model_validate(json.loads(json.dumps(answer)))
    assert explanation.class_name == "malignant"  # the positive class
    picture = Image.open(BytesIO(base64.b64decode(explanation.overlay_png)), formats=["PNG"])
    assert (picture.mode, picture.size) == ("RGBA", (40, 32))


def test_the_same_question_has_the_same_answer_on_one_thread(
    bundle: Bundle, explainer: Explainer
) -> None:
    question = IMAGE, str(bundle.folder), bundle.manifest.digest, "benign"
    assert explainer.explain(*question) == explainer.explain(*question)
    assert torch.get_num_threads() == 1


def test_members_that_are_lost_are_not_asked(bundle: Bundle, explainer: Explainer) -> None:
    folder, digest = str(bundle.folder), bundle.manifest.digest
    answer = explainer.explain(IMAGE, folder, digest, "benign", ["cnn_1"])
    assert list(answer["members"]) == ["cnn_1"]
    assert answer["map"] == answer["members"]["cnn_1"]
    with pytest.raises(BundleError, match=r"no members cnn_9; there are cnn_0, cnn_1"):
        explainer.explain(IMAGE, folder, digest, "benign", ["cnn_9"])
    with pytest.raises(BundleError, match=r"\(none named\)"):
        explainer.explain(IMAGE, folder, digest, "benign", [])


@pytest.mark.parametrize("favoured", ["benign", "malignant"])
def test_without_a_positive_class_the_most_probable_one_is_explained(
    bundle: Bundle, tmp_path: Path, favoured: str
) -> None:
    bundle = rewritten(bundle, tmp_path, positive=None, operating_points=[])
    explainer = Explainer(max_pixels=10_000)
    question = IMAGE, str(bundle.folder), bundle.manifest.digest
    explainer.explain(*question)
    opened = explainer._open[bundle.manifest.digest]
    for member in bundle.manifest.members:
        with torch.no_grad():
            output_of(opened.networks(member)[0]).bias[bundle.manifest.classes.index(favoured)] = 99
    assert explainer.explain(*question)["class_name"] == favoured


def test_a_member_of_several_networks_is_the_mean_of_at_most_five(
    bundle: Bundle, tmp_path: Path
) -> None:
    members = bundle.manifest.model_dump()["members"]
    other = members[1]["networks"]
    members[0]["networks"] = [*members[0]["networks"], *(6 * other)]
    bundle = rewritten(bundle, tmp_path, members=members)
    explainer = Explainer(max_pixels=10_000)
    question = str(bundle.folder), bundle.manifest.digest, "malignant", ["cnn_0"]
    rows = explainer.explain(IMAGE, *question)["map"]
    own = {"own": own_map(bundle, 0, 1), "other": own_map(bundle, 1, 1)}
    assert rows == as_rows(pool_maps(own, {"own": 1, "other": 4}))


def test_an_unknown_class_is_refused_by_those_that_are_known(
    bundle: Bundle, explainer: Explainer
) -> None:
    with pytest.raises(ProblemError, match=r"no class 'wart'; .* benign, malignant") as refused:
        explainer.explain(IMAGE, str(bundle.folder), bundle.manifest.digest, "wart")
    assert (refused.value.status, refused.value.code) == (422, "unknown_class")


@pytest.mark.parametrize(
    ("length", "max_pixels", "code"),
    [(60, 10_000, "damaged_image"), (None, 1000, "too_many_pixels")],
    ids=["damaged", "large"],
)
def test_images_are_refused_as_they_are_for_a_prediction(
    bundle: Bundle, length: int | None, max_pixels: int, code: str
) -> None:
    explainer = Explainer(max_pixels)
    with pytest.raises(ProblemError, match=r"image 1") as refused:
        explainer.explain(IMAGE[:length], str(bundle.folder), bundle.manifest.digest)
    assert refused.value.code == code


def test_another_bundle_than_the_one_served_is_refused_and_not_kept(bundle: Bundle) -> None:
    explainer = Explainer(max_pixels=10_000)
    for _ in range(2):
        with pytest.raises(BundleError, match=rf"its digest is {bundle.manifest.digest}, not abc"):
            explainer.explain(IMAGE, str(bundle.folder), "abc")
    assert not explainer._open


def test_the_two_bundles_asked_for_last_are_kept(bundle: Bundle, tmp_path: Path) -> None:
    explainer = Explainer(max_pixels=10_000)
    bundles = [rewritten(bundle, tmp_path / name, version=name) for name in "abc"]
    for index in (0, 1, 0, 2):
        asked = bundles[index]
        explainer.explain(IMAGE, str(asked.folder), asked.manifest.digest)
    digests = [one.manifest.digest for one in bundles]
    assert list(explainer._open) == [digests[0], digests[2]]


def test_a_bundle_that_is_open_is_not_read_again(bundle: Bundle, tmp_path: Path) -> None:
    explainer = Explainer(max_pixels=10_000)
    moved = rewritten(bundle, tmp_path / "here", version="2")
    question = IMAGE, str(moved.folder), moved.manifest.digest
    first = explainer.explain(*question)
    moved.folder.rename(tmp_path / "gone")
    assert explainer.explain(*question) == first


def test_a_member_without_a_map_is_left_out_and_none_at_all_is_said(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = Explainer(max_pixels=10_000)
    question = IMAGE, str(bundle.folder), bundle.manifest.digest, "benign"
    assert len(explainer.explain(*question)["members"]) == 2
    mapless = [explainer._open[question[2]].networks(bundle.manifest.members[0])[0].trunk]
    found = gradcam._last_map
    monkeypatch.setattr(
        gradcam,
        "_last_map",
        lambda trunk, size, **how: None if trunk in mapless else found(trunk, size, **how),
    )
    assert list(explainer.explain(*question)["members"]) == ["cnn_1"]
    mapless.append(explainer._open[question[2]].networks(bundle.manifest.members[1])[0].trunk)
    with pytest.raises(ServingError, match=r"keeps no map of its image"):
        explainer.explain(*question)
