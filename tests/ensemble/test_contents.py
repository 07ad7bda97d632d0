"""A bundle's folder holds its listed files as they were, and nothing that could run code."""

import gzip
import io
import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

import ensemble.contents
from ensemble.bundle import MANIFEST, hash_files, load_bundle
from tests.ensemble.doubling import (
    GRAPH,
    WEIGHTS,
    change,
    graph,
    refused,
    tensor,
    write_bundle,
    write_graph,
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny")


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def list_as(folder: Path, name: str) -> None:
    files = json.loads((folder / MANIFEST).read_text())["files"]
    change(folder, "files", files | {name: "0" * 64}, seal=True)


def smuggle(folder: Path, name: str, content: bytes) -> None:
    """A file that is on the list with its right hash."""
    (folder / name).write_bytes(content)
    change(folder, "files", hash_files(folder), seal=True)


@pytest.mark.parametrize("name", [WEIGHTS, GRAPH, "card.md"])
def test_one_changed_byte_is_named(bundle: Path, name: str) -> None:
    flip_a_byte(bundle / name)
    refused(bundle, f"{name}: changed since it was built")


def test_links_are_refused_wherever_they_lead(bundle: Path, tmp_path: Path) -> None:
    (bundle / "also.md").symlink_to(bundle / "card.md")
    refused(bundle, r"also.md: a link; a bundle holds its files itself")
    (bundle / "also.md").unlink()
    shutil.move(bundle / "card.md", tmp_path / "card.md")
    (bundle / "card.md").symlink_to(tmp_path / "card.md")
    refused(bundle, r"card.md: a link")
    (bundle / "card.md").unlink()
    (bundle / "more").symlink_to(tmp_path, target_is_directory=True)
    refused(bundle, r"more: a link")


def test_a_pipe_is_refused_and_not_waited_for(bundle: Path) -> None:
    (bundle / "card.md").unlink()
    os.mkfifo(bundle / "card.md")
    refused(bundle, r"card.md: not a plain file")


@pytest.mark.parametrize(
    "name", ["../x.json", "/etc/x.json", "a/../../x.json", "a\\x.json", "./x.json", "a//x.json"]
)
def test_a_path_that_leaves_the_folder_is_refused(bundle: Path, name: str) -> None:
    list_as(bundle, name)
    refused(bundle, r"the path '.*x.json' leaves the bundle")


def test_a_path_of_several_lines_is_one_line_of_error(bundle: Path) -> None:
    list_as(bundle, "a\nb.json")
    refused(bundle, r"the path 'a\\nb.json' leaves the bundle")


def test_a_list_that_names_itself_is_refused(bundle: Path) -> None:
    list_as(bundle, MANIFEST)
    refused(bundle, r"bundle.json lists itself")


@pytest.mark.parametrize("field", ["weights_file", "onnx_file", "int8_file"])
def test_a_network_outside_of_the_list_is_refused(bundle: Path, field: str) -> None:
    members = json.loads((bundle / MANIFEST).read_text())["members"]
    members[0]["networks"][0][field] = "../evil.onnx"
    change(bundle, "members", members, seal=True)
    refused(bundle, r"member file ../evil.onnx is not listed")


def test_a_reference_outside_of_the_list_is_refused(bundle: Path) -> None:
    novelty = {
        "member": "cnn_0", "network": 0, "reference_file": "../evil.safetensors", "k": 1,
        "threshold": 1, "flagged_held_back": 0, "measured": [],
    }  # fmt: skip
    change(bundle, "out_of_distribution", novelty, seal=True)
    refused(bundle, r"member file ../evil.safetensors is not listed")


@pytest.mark.parametrize("name", ["x.pkl", "x.pt", "x.pt2", "x.npy", "x.py", "x", "x.JSON"])
def test_a_listed_file_of_another_kind_is_refused(bundle: Path, name: str) -> None:
    smuggle(bundle, name, b"harmless")
    refused(bundle, rf"{name}: a bundle holds no \S+ files, only .json, .safetensors, .onnx")


def archive(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("archive/data.pkl", content)
    return file.getvalue()


PICKLES = [pickle.dumps({"a": 1}, protocol=protocol) for protocol in range(2, 6)]


@pytest.mark.parametrize("name", ["x.json", "x.png", "x.onnx", "x.md"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        *((content, "a pickle") for content in PICKLES),
        (archive(PICKLES[0]), "an archive"),
        (gzip.compress(PICKLES[0]), "an archive"),
    ],
    ids=["protocol 2", "protocol 3", "protocol 4", "protocol 5", "zip", "gzip"],
)
def test_a_listed_pickle_is_refused_under_any_name(
    bundle: Path, name: str, content: bytes, kind: str
) -> None:
    smuggle(bundle, name, content)
    refused(bundle, f"{name}: {kind}, which could run code")


@pytest.mark.parametrize(
    "content", [*PICKLES, archive(PICKLES[0]), b"", b"\xff" * 8 + b"{"], ids=range(7)
)
def test_what_is_no_safetensors_is_refused_under_that_name(bundle: Path, content: bytes) -> None:
    smuggle(bundle, "x.safetensors", content)
    refused(bundle, r"x.safetensors: no safetensors")


def test_safetensors_whose_length_looks_like_a_pickle_are_read(bundle: Path) -> None:
    for fill in range(400, 700):
        save_file({"a": np.zeros(1, np.float32)}, bundle / "x.safetensors", {"fill": "x" * fill})
        if (bundle / "x.safetensors").read_bytes().startswith(b"\x80\x02"):
            break
    else:
        pytest.fail("no header of 640 bytes came about")
    change(bundle, "files", hash_files(bundle), seal=True)
    assert "x.safetensors" in load_bundle(bundle).manifest.files


def test_a_graph_that_reads_another_file_is_refused(bundle: Path) -> None:
    write_graph(bundle / GRAPH, initialisers=[tensor(location="../../../etc/passwd")])
    change(bundle, "files", hash_files(bundle), seal=True)
    refused(bundle, rf"{GRAPH}: tensor 'scale' lies in another file")


def test_a_graph_within_a_graph_that_reads_another_file_is_refused(bundle: Path) -> None:
    constant = helper.make_node("Constant", [], ["k"], value=tensor("k", location="card.md"))
    branch = helper.make_graph(
        [constant], "branch", [], [helper.make_tensor_value_info("k", TensorProto.FLOAT, [1])]
    )
    nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
    write_graph(bundle / GRAPH, initialisers=[tensor()], nodes=nodes)
    change(bundle, "files", hash_files(bundle), seal=True)
    refused(bundle, rf"{GRAPH}: tensor 'k' lies in another file")


def test_a_function_of_a_graph_that_reads_another_file_is_refused(bundle: Path) -> None:
    constant = helper.make_node("Constant", [], ["f"], value=tensor("f", location="card.md"))
    opset = helper.make_opsetid("", 18)
    function = helper.make_function("own", "F", [], ["f"], [constant], [opset])
    model = helper.make_model(graph(initialisers=[tensor()]), functions=[function])
    (bundle / GRAPH).write_bytes(model.SerializeToString())
    change(bundle, "files", hash_files(bundle), seal=True)
    refused(bundle, rf"{GRAPH}: tensor 'f' lies in another file")


def test_a_graph_that_is_none_is_refused(bundle: Path) -> None:
    smuggle(bundle, GRAPH, b"\x08")
    refused(bundle, rf"{GRAPH}: no ONNX graph")


def test_too_many_files_are_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ensemble.contents.MOST_FILES == 10_000
    monkeypatch.setattr(ensemble.contents, "MOST_FILES", 20)
    for i in range(13):  # 5 files, their 2 folders and the manifest are there
        (bundle / f"{i}.md").touch()
    refused(bundle, r"tiny: more than 20 files")
    (bundle / "0.md").unlink()
    refused(bundle, r"1.md: not listed")
