"""What people do with bundles: print, compare, evaluate; and what they get wrong."""

import json
from pathlib import Path

import pytest

from cluster import cli
from search.errors import GateError
from tests.cluster.refusals import refusal
from tests.experiments import DOCUMENT, write_experiment
from tests.tiny import tiny_bytes


def test_a_failed_gate_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, experiment: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise GateError("no new bundle: 1 of 1 gates failed")

    monkeypatch.setattr("ensemble.build.build_ensemble", fail)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["ensemble", str(experiment)])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "consilium: no new bundle: 1 of 1 gates failed\n"


@pytest.mark.parametrize("word", ["malignant", "malignant=x", "=0.1"])
def test_a_prevalence_that_is_none(
    capsys: pytest.CaptureFixture[str], bundle: Path, image: Path, word: str
) -> None:
    line = refusal(capsys, "predict", bundle, image, "--prevalence", word)
    assert f"--prevalence is CLASS=SHARE, melanoma=0.02 say, not {word!r}" in line


def test_a_prevalence_of_an_unknown_class(
    capsys: pytest.CaptureFixture[str], bundle: Path, image: Path
) -> None:
    assert "nevus" in refusal(capsys, "predict", bundle, image, "--prevalence", "nevus=0.1")


def test_a_bundle_is_printed_checked_and_compared(
    capsys: pytest.CaptureFixture[str], bundle: Path
) -> None:
    cli.main(["inspect", str(bundle), "--check", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [row["engine"] for row in found["Golden images"]] == ["onnx", "torch"]
    cli.main(["diff", str(bundle), str(bundle), "--json"])
    assert json.loads(capsys.readouterr().out)


def test_names_that_look_like_markup_are_printed_as_they_are(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "[red]b[x].png"
    odd.write_bytes(tiny_bytes(1))
    cli.main(["predict", str(bundle), str(odd)])
    assert "[red]b[x].png" in capsys.readouterr().out.replace("\n", "")


def test_a_set_with_an_unknown_label(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    classes = {"harmless": ["benign"], "malignant": ["malignant"]}
    path = write_experiment(tmp_path, dataset=DOCUMENT["dataset"] | {"classes": classes})
    line = refusal(capsys, "evaluate", bundle, path)
    assert "class 'harmless' is none of the bundle's (benign, malignant); map the raw" in line


def test_a_set_is_evaluated_at_another_prevalence(
    capsys: pytest.CaptureFixture[str], bundle: Path, tmp_path: Path
) -> None:
    path = write_experiment(tmp_path)
    words = ["evaluate", str(bundle), str(path), "--json"]
    cli.main(words)
    before = json.loads(capsys.readouterr().out)
    cli.main([*words, "--prevalence", "malignant=0.01"])
    after = json.loads(capsys.readouterr().out)
    assert before["metrics"]["nll"] != after["metrics"]["nll"]
    for name in ("sensitivity", "specificity"):
        assert before["operating_points"][0][name] == after["operating_points"][0][name]
