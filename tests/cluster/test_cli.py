"""Bad input is one clear line, exit code 2, and nothing half-written."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import cli
from ensemble.bundle import MANIFEST
from tests.cluster.refusals import refusal
from tests.experiments import write_experiment


@pytest.mark.parametrize("command", ["audit", "search", "ensemble"])
def test_a_config_that_is_not_there(capsys: pytest.CaptureFixture[str], command: str) -> None:
    line = refusal(capsys, command, "absent.yaml")
    assert line == (
        "consilium: absent.yaml: no such file or directory; name an experiment's YAML file"
    )


def test_an_unknown_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_experiment(tmp_path, trails=3)
    assert "tiny.yaml:" in refusal(capsys, "search", path)
    assert "trails: unknown key; known here: name, seed" in refusal(capsys, "search", path)


def test_an_unknown_key_of_the_ensemble(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_experiment(tmp_path, ensemble={"membres": 3})
    assert "ensemble.membres: unknown key; known here: budget" in refusal(capsys, "ensemble", path)


def a_source(**changes: object) -> dict[str, object]:
    columns = {"image": "image_id", "label": "dx"}
    source = {
        "table": "data/metadata.csv",
        "images": ["data/images"],
        "columns": columns,
        **changes,
    }
    return {"sources": [source]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": {"sources": [{"folder": "absent"}]}}, "absent: no such folder"),
        (
            {"dataset": a_source(columns={"image": "image_id", "label": "label"})},
            "has no column 'label'; it has image_id, dx",
        ),
        (
            {"dataset": {**a_source(), "classes": {"x": ["x"], "other": "*"}}},
            "class 'x' has no images",
        ),
        ({"splits": {"folds": 60}}, "lower splits.folds"),
        ({"audit": {"missing_metadata": "error"}}, "audit: missing_metadata:"),
    ],
    ids=["folder", "column", "class", "folds", "audit"],
)
def test_a_search_that_cannot_begin_leaves_no_study(
    capsys: pytest.CaptureFixture[str],
    experiment: Path,
    tmp_path: Path,
    changes: dict[str, object],
    message: str,
) -> None:
    shutil.copytree(experiment.parent / "data", tmp_path / "data")
    path = write_experiment(tmp_path, **changes)
    assert message in refusal(capsys, "search", path)
    assert not (tmp_path / "out" / "study" / "study.json").exists()
    assert not list(tmp_path.rglob("*.tmp"))


SPACE = {"backbone": "cnn", "image_size": 16}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "tpee"}, "sampler: unknown sampler 'tpee'; known are tpe, gp, cmaes"),
        (
            {"space": {**SPACE, "hidden": {"choice": [1], "when": {"backbone": ["vit_*"]}}}},
            "space.hidden: when backbone is one of ['vit_*'], but backbone can only be cnn",
        ),
        (
            {"objective": "cost", "dataset": a_source()},
            "objective: cost needs a positive class; set dataset.positive",
        ),
        ({"objective": ["nll", "params_m"], "sampler": "cmaes"}, "cmaes takes one objective"),
        ({"resources": {"gpu": 1}}, "1 GPUs on one node, Ray has"),
        ({"storage": "postgresql://me@127.0.0.1:9/db"}, "127.0.0.1:9/db"),
        ({"constraints": {"params_m": 1e-6}}, "no feasible trial among 3; the nearest exceeds"),
        ({"portfolio": {"file": "absent.yaml"}}, "absent.yaml"),
    ],
    ids=["sampler", "condition", "objective", "cmaes", "gpus", "database", "feasible", "portfolio"],
)
def test_a_search_that_asks_for_what_cannot_be(
    capsys: pytest.CaptureFixture[str],
    experiment: Path,
    tmp_path: Path,
    changes: dict[str, object],
    message: str,
) -> None:
    shutil.copytree(experiment.parent / "data", tmp_path / "data")
    assert message in refusal(capsys, "search", write_experiment(tmp_path, **changes))


def test_ctrl_c_is_said_and_does_not_look_like_success(
    capsys: pytest.CaptureFixture[str], experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cluster.steps.search_trials", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main(["search", str(experiment)])
    assert stop.value.code == 1
    assert "stopped; the same command goes on where it stopped" in capsys.readouterr().err


def test_a_number_of_trials_that_is_none(
    capsys: pytest.CaptureFixture[str], experiment: Path
) -> None:
    line = refusal(capsys, "search", experiment, "--trials", "ten")
    assert "--trials is 40, say, or +10, not 'ten'" in line


def test_a_report_of_no_study(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no study here; run consilium search first" in refusal(capsys, "report", tmp_path)


def test_an_ensemble_without_a_study(capsys: pytest.CaptureFixture[str], experiment: Path) -> None:
    assert "no study here; run consilium search first" in refusal(capsys, "ensemble", experiment)


def test_a_study_from_a_newer_version(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    study = tmp_path / "out" / "study" / "study.json"
    study.parent.mkdir(parents=True)
    study.write_text(json.dumps({"schema_version": 99}))
    assert "schema 99 is newer than 2" in refusal(capsys, "ensemble", path)


def flip(folder: Path) -> None:
    weights = next(folder.glob("members/*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def age(folder: Path) -> None:
    document = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(document | {"schema_version": 99}))


@pytest.mark.parametrize("command", ["predict", "serve"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [(flip, "cnn_0.safetensors: changed since it was built"), (age, "schema 99 is newer than 2")],
    ids=["changed", "newer"],
)
def test_a_bundle_that_is_not_as_built(
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    image: Path,
    tmp_path: Path,
    command: str,
    spoil: Callable[[Path], None],
    message: str,
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    spoil(copy)
    words = (command, copy, image) if command == "predict" else (command, copy)
    assert message in refusal(capsys, *words)


def test_a_damaged_image(capsys: pytest.CaptureFixture[str], bundle: Path, image: Path) -> None:
    image.write_bytes(image.read_bytes()[:60])
    line = refusal(capsys, "predict", bundle, image)
    assert "lesion.png: damaged" in line
    assert "replace the file" in line


def test_an_unknown_operating_point(
    capsys: pytest.CaptureFixture[str], bundle: Path, image: Path
) -> None:
    line = refusal(capsys, "predict", bundle, image, "--operating-point", "x")
    assert "no operating point 'x'; this bundle has sensitivity_0.95, balanced" in line


def test_an_endpoint_that_does_not_answer(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        assert "cannot be reached" in refusal(capsys, "predict", url, image)


def test_a_port_in_use(capsys: pytest.CaptureFixture[str], bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refusal(capsys, "serve", bundle, "--port", port)
    assert f"127.0.0.1:{port}: address already in use; choose another port" in line


def test_a_full_disk(
    capsys: pytest.CaptureFixture[str],
    bundle: Path,
    experiment: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("search.atomic.write_text", full)
    line = refusal(capsys, "evaluate", bundle, experiment, "--output", tmp_path / "e")
    assert "evaluation.json: the disk is full; free some space" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serch"], "No such command 'serch'. Did you mean 'search', 'serve'?"),
        (["audit", "--bogus"], "No such option: --bogus"),
        (["audit"], "Missing argument 'CONFIG'"),
        (["serve", "b", "--port", "99999"], "Invalid value for '--port'"),
    ],
)
def test_words_that_are_no_command(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert message.lower() in refusal(capsys, *words).lower()


def test_a_bundle_predicts_in_json(
    capsys: pytest.CaptureFixture[str], bundle: Path, image: Path
) -> None:
    cli.run(["predict", str(bundle), str(image), "--json"])
    row = json.loads(capsys.readouterr().out)["images"][0]
    assert row["image"] == str(image)
    assert row["benign"] + row["malignant"] == pytest.approx(1)
    assert row["decision"] in ("positive", "negative")


def test_help_says_what_it_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    assert "not a medical device" in capsys.readouterr().out


def test_the_command_itself_loads_nothing_that_takes_seconds() -> None:
    code = "import sys, cluster.cli; print(sorted({'ray', 'torch', 'pandas'} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout.strip() == "[]"
