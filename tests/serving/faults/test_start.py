"""What cannot start says why in one line, and no Ray is started to find that out."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from serving.http.keys import add_key
from serving.scoring.service import Service
from tests.cluster.refusals import refusal
from tests.serving.bundles import rebuilt
from tests.serving.faults.servers import served
from tests.tiny import tiny_bytes

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that starts a Ray fails; what the command sets for Serve is taken back."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a Ray was started")

    before = dict(os.environ)
    monkeypatch.setattr("ray.init", start)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]


@pytest.fixture
def spoilt(bundle_folder: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may change."""
    return Path(shutil.copytree(bundle_folder, tmp_path / "spoilt"))


def test_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = refusal(capsys, "serve", tmp_path / "absent")
    assert "absent" in line
    assert "no readable bundle.json" in line


def test_a_member_that_was_changed(capsys: pytest.CaptureFixture[str], spoilt: Path) -> None:
    file = spoilt / "members" / "cnn_0.onnx"
    file.write_bytes(file.read_bytes() + b"\x00")
    assert "cnn_0.onnx: changed since it was built" in refusal(capsys, "serve", spoilt)


def test_a_member_that_is_missing(capsys: pytest.CaptureFixture[str], spoilt: Path) -> None:
    (spoilt / "members" / "cnn_1.onnx").unlink()
    assert "cnn_1.onnx: missing from the bundle; build it again" in refusal(capsys, "serve", spoilt)


def test_a_file_that_nobody_listed(capsys: pytest.CaptureFixture[str], spoilt: Path) -> None:
    (spoilt / "members" / "extra.pkl").write_bytes(b"cos\nsystem\n")
    assert "extra.pkl" in refusal(capsys, "serve", spoilt)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 1}', "\x00\xff" * 100])
def test_a_manifest_that_is_none(
    capsys: pytest.CaptureFixture[str], spoilt: Path, content: str
) -> None:
    (spoilt / "bundle.json").write_text(content)
    assert "bundle.json" in refusal(capsys, "serve", spoilt)


def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str], bundle_folder: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        line = refusal(capsys, "serve", bundle_folder, "--port", str(port))
    assert line == (
        f"consilium: 127.0.0.1:{port}: address already in use; choose another port or host"
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.77", "example.invalid"])  # noqa: S104
def test_a_host_that_others_reach_needs_keys(
    capsys: pytest.CaptureFixture[str], bundle_folder: Path, host: str
) -> None:
    line = refusal(capsys, "serve", bundle_folder, "--host", host)
    assert f"host {host} can be reached from other machines and no keys are asked for" in line


def test_a_host_that_is_not_this_machines(
    capsys: pytest.CaptureFixture[str], bundle_folder: Path
) -> None:
    for host in ("192.0.2.77", "example.invalid"):
        line = refusal(capsys, "serve", bundle_folder, "--host", host, "--insecure")
        assert "choose another port or host" in line


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (None, 0o600, "no such file or directory; name a file that consilium key add made"),
        ("keys: [", 0o600, "mend the file"),
        ("- id: a", 0o600, "mend the file"),
        ("\x00", 0o600, "mend the file"),
        ("", 0o600, "consilium key add"),
        ("[]", 0o600, "consilium key add"),
        ("whole", 0o666, "others than its owner may write it; chmod go-w it"),
    ],
)
def test_a_file_of_keys_that_is_none(
    capsys: pytest.CaptureFixture[str],
    bundle_folder: Path,
    tmp_path: Path,
    content: str | None,
    mode: int,
    message: str,
) -> None:
    file = tmp_path / "keys.yaml"
    if content == "whole":
        add_key(file, "clinic", ["predict"])
    elif content is not None:
        file.write_text(content)
    if content is not None:
        file.chmod(mode)
    line = refusal(capsys, "serve", bundle_folder, "--keys", file)
    assert "keys.yaml" in line
    assert message in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 8001", "prot: unknown key"),
        ("port: 0", "port"),
        ("max_replicas: 0", "max_replicas"),
        ("min_replicas: 3\nmax_replicas: 2", "max_replicas 2 is below min_replicas 3"),
        ("gpus: 1", "engine onnx runs on CPUs"),
        ("[", "settings.yaml"),
        ("host: 0.0.0.0", "no keys are asked for"),
    ],
)
def test_settings_that_do_not_hang_together(
    capsys: pytest.CaptureFixture[str],
    bundle_folder: Path,
    tmp_path: Path,
    text: str,
    message: str,
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert message in refusal(capsys, "serve", bundle_folder, "--config", file)


def test_an_operating_point_that_the_service_does_not_have(
    capsys: pytest.CaptureFixture[str], quiet: Service, tmp_path: Path
) -> None:
    image = tmp_path / "lesion.png"
    image.write_bytes(tiny_bytes())
    with served(quiet) as url:
        line = refusal(capsys, "predict", url, image, "--operating-point", "perfect")
    assert "unknown_operating_point" in line
    assert "'perfect'" in line
    assert "sensitivity_0.95, balanced" in line


def test_the_real_command_ends_with_code_2_and_one_line(tmp_path: Path) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_ADDRESS": "127.0.0.1:1"}
    words = [sys.executable, "-c", "from cluster.cli import main; main()", "serve", str(tmp_path)]
    found = subprocess.run(
        words, env=surroundings, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (2, "")
    [line] = found.stderr.splitlines()
    assert line.startswith("consilium: ")
    assert "no readable bundle.json" in line


def test_a_bundle_of_another_make_is_named_with_its_schema(
    capsys: pytest.CaptureFixture[str], bundle_folder: Path, tmp_path: Path
) -> None:
    folder = rebuilt(tmp_path / "newer", bundle_folder, version="2")
    document = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(document | {"schema_version": 99}))
    assert "schema 99 is newer than" in refusal(capsys, "serve", folder)
