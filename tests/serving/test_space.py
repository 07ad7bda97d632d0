import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ensemble.bundle import load_bundle
from ensemble.runtime import Runtime
from search.errors import BundleError, DamagedImageError, ServingError
from serving.schemas import NOTICE
from serving.space import app
from serving.space.write import write_space
from tests.tiny import write_tiny_bundle

# A gradio that writes down what is built and launched.
GRADIO = """
made = []

class Made:
    def __init__(self, kind, args, options):
        self.kind, self.args, self.options = kind, args, options
        made.append(self)
    def __enter__(self):
        return self
    def __exit__(self, *_):
        return False
    def click(self, answer, *, inputs, outputs, api_name):
        self.answer, self.inputs, self.outputs = answer, inputs, outputs
    def queue(self, **options):
        self.queued = options
    def launch(self, **options):
        self.launched = options

class Error(Exception):
    pass

def __getattr__(kind):
    return lambda *args, **options: Made(kind, args, options)
"""
# What a visitor does, in the interpreter that a Space has: its own folder and the libraries.
VISIT = """
import json, sys
from pathlib import Path
space = Path(sys.argv[1])
sys.path.insert(0, str(space))
sys.path.append(sys.argv[2])
import app, gradio
app.main()
page, button = (next(m for m in gradio.made if m.kind == k) for k in ("Blocks", "Button"))
golden = sorted((space / "bundle/golden").glob("*.png"))
answers = [button.answer(str(path), "balanced") for path in golden]
refused = []
for path, point in ((None, None), (str(space / "app.py"), None), (str(golden[0]), "other")):
    try:
        button.answer(path, point)
    except gradio.Error as error:
        refused.append(str(error))
print(json.dumps({
    "answers": answers, "refused": refused, "launched": page.launched, "queued": page.queued,
    "kinds": [m.kind for m in gradio.made], "names": [path.name for path in golden],
    "examples": next(m.args[0] for m in gradio.made if m.kind == "Examples"),
    "modules": sorted(sys.modules),
    "ours": {n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] in
             ("search", "ensemble", "serving", "app") and getattr(m, "__file__", None)},
}))
"""


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("space") / "bundle")


@pytest.fixture(scope="module")
def space(bundle_folder: Path) -> Path:
    return write_space(bundle_folder, bundle_folder.with_name("space"))


@pytest.fixture(scope="module")
def visit(space: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    stand_in = tmp_path_factory.mktemp("gradio")
    (stand_in / "gradio.py").write_text(GRADIO)
    (stand_in / "visit.py").write_text(VISIT)
    found = subprocess.run(
        [sys.executable, "-P", str(stand_in / "visit.py"), str(space), str(stand_in)],
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        cwd=space,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    seen: dict[str, Any] = json.loads(found.stdout)
    return seen


def test_a_space_gives_the_bundles_golden_probabilities(
    visit: dict[str, Any], bundle_folder: Path
) -> None:
    expected = json.loads((bundle_folder / "golden" / "probs.json").read_text())["onnx"]
    for name, (probs, _) in zip(visit["names"], visit["answers"], strict=True):
        assert list(probs) == ["benign", "malignant"]
        assert list(probs.values()) == pytest.approx(expected[name], abs=1e-5)


def test_a_space_decides_at_the_point_that_is_chosen_and_says_what_it_is_for(
    visit: dict[str, Any],
) -> None:
    for probs, words in visit["answers"]:
        said = "positive" if probs["malignant"] >= 0.5 else "negative"
        assert words.startswith(f"**{said}** for malignant, at the operating point balanced")
        assert "not certified" in words
        assert words.endswith(NOTICE)


def test_a_space_scores_with_its_own_modules_without_torch_or_ray(
    visit: dict[str, Any], space: Path
) -> None:
    assert {"torch", "ray", "serving", "cv2"}.isdisjoint(visit["modules"])
    assert {"ensemble.runtime", "search.data.transforms"} <= set(visit["ours"])
    assert all(Path(path).is_relative_to(space) for path in visit["ours"].values())


def test_what_cannot_be_answered_is_one_line_on_the_page(visit: dict[str, Any]) -> None:
    nothing, no_image, no_point = visit["refused"]
    assert nothing == "no image; choose one"
    assert no_image.startswith("image: not a JPEG")
    assert no_point.startswith("no operating point 'other'")


def test_the_page_offers_the_golden_images_and_keeps_no_upload(visit: dict[str, Any]) -> None:
    assert [Path(path).name for (path,) in visit["examples"]] == ["0.png", "1.png"]
    assert visit["kinds"].count("Label") == 1
    assert visit["launched"]["run_history"] is False
    assert visit["launched"]["max_file_size"] == app.LARGEST
    assert visit["queued"]["max_size"] == 32


def test_a_space_holds_what_scoring_needs_and_no_more(space: Path) -> None:
    files = {p.relative_to(space).as_posix() for p in space.rglob("*") if p.is_file()}
    held = {name for name in files if name.startswith("bundle/")}
    assert held == {
        "bundle/bundle.json", "bundle/card.md", "bundle/golden/0.png", "bundle/golden/1.png",
        "bundle/golden/probs.json", "bundle/members/cnn_0.onnx", "bundle/members/cnn_1.onnx",
    }  # fmt: skip
    assert "ensemble/build.py" not in files
    assert not any("__pycache__" in name for name in files)


def test_the_libraries_are_those_that_scoring_imports(space: Path) -> None:
    pins = (space / "requirements.txt").read_text().split()
    names = {pin.partition("=")[0].partition(">")[0] for pin in pins}
    assert {"numpy", "pillow", "onnx", "onnxruntime", "pydantic"} <= names
    assert names.isdisjoint({"torch", "ray", "gradio", "opencv-python-headless", "pydantic-core"})
    assert all("==" in pin or ">=" in pin for pin in pins)


def test_the_readme_is_the_spaces_settings_and_the_notice(space: Path) -> None:
    _, front, text = (space / "README.md").read_text().split("---\n", 2)
    settings = yaml.safe_load(front)
    assert settings["title"] == "tiny 1"
    assert (settings["sdk"], settings["app_file"]) == ("gradio", "app.py")
    assert isinstance(settings["sdk_version"], str)
    assert settings["license"] == "other"
    assert (space / settings["license_link"]).is_file()
    assert NOTICE in text
    assert "*.onnx filter=lfs" in (space / ".gitattributes").read_text()


def test_the_notice_is_the_services() -> None:
    assert app.NOTICE == NOTICE


@pytest.mark.parametrize("name", ["members/cnn_1.onnx", "bundle.json", "golden/0.png"])
def test_a_space_refuses_a_file_that_was_changed(space: Path, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(space / "bundle", tmp_path / "bundle"))
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(BundleError, match=r"changed since it was built"):
        app.open_bundle(folder)


def test_a_space_refuses_a_file_that_is_on_no_list(space: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(space / "bundle", tmp_path / "bundle"))
    (folder / "more.json").write_text("{}")
    with pytest.raises(BundleError, match=r"more.json: not listed"):
        app.open_bundle(folder)


def test_golden_images_that_come_out_differently_are_refused(
    space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "TOLERANCE", -1.0)
    with pytest.raises(BundleError, match=r"golden image 0.png comes out .* off"):
        app.open_bundle(space / "bundle")


def test_an_image_that_is_too_large_is_not_decoded(bundle_folder: Path) -> None:
    runtime = Runtime(load_bundle(bundle_folder))
    with pytest.raises(DamagedImageError, match=r"larger than 20 MB"):
        app.predict(runtime, bytes(app.LARGEST + 1))


def test_what_stands_in_the_folders_place_is_left_alone(
    bundle_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    for output in (tmp_path, tmp_path / "note.txt"):
        with pytest.raises(ServingError, match=r"something stands there already; name a new"):
            write_space(bundle_folder, output)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_nothing_is_left_where_the_bundle_is_damaged(bundle_folder: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(bundle_folder, tmp_path / "damaged"))
    (damaged / "members" / "cnn_0.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"changed since it was built"):
        write_space(damaged, tmp_path / "space")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_nothing_is_left_where_the_space_cannot_score(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.space.write.PROBE", "raise SystemExit('no such engine')")
    with pytest.raises(ServingError, match=r"cannot score the bundle: no such engine"):
        write_space(bundle_folder, tmp_path / "space")
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_is_filled(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "space").mkdir()
    written = write_space(bundle_folder, tmp_path / "space")
    assert (written / "app.py").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["space"]
