"""What a job is told, and what it is never told."""

from pathlib import Path

import pytest

from cluster.jobs.submission import Order, Step, checked_environment
from search.config import load_config
from search.errors import ClusterError
from tests.cluster.refusals import refusal
from tests.experiments import write_experiment

ADDRESS = ("--address", "http://127.0.0.1:9")


def test_a_variable_is_passed_on_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert checked_environment(["HF_HUB_OFFLINE"]) == {"HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize(
    "name",
    ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "RAY_AUTH_TOKEN", "hf_token"],
)
def test_a_secret_is_not_passed_on(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv(name, "open-sesame")
    line = refusal(capsys, "submit", write_experiment(tmp_path), *ADDRESS, "--env", name)
    assert f"--env {name}: looks like a secret" in line
    assert "open-sesame" not in line


def test_a_login_within_a_url_is_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER", "redis://ada:open-sesame@broker:6379/0")
    with pytest.raises(ClusterError, match=r"--env BROKER: looks like a secret") as refused:
        checked_environment(["BROKER"])
    assert "open-sesame" not in str(refused.value)


def test_a_value_is_not_given_on_the_command_line() -> None:
    with pytest.raises(ClusterError, match=r"a variable's name alone, whose value is here: A$"):
        checked_environment(["A=open-sesame"])


def test_a_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    with pytest.raises(ClusterError, match=r"--env ABSENT: is not set here; export it first"):
        checked_environment(["ABSENT"])


@pytest.mark.parametrize(
    ("step", "trials", "command"),
    [
        ("search", None, "exec python -m cluster search experiment.yaml"),
        ("search", "+10", "exec python -m cluster search experiment.yaml --trials +10"),
        ("ensemble", None, "exec python -m cluster ensemble experiment.yaml"),
        ("pipeline", None, "exec python -m cluster pipeline experiment.yaml"),
    ],
)
def test_the_command_there_is_the_one_of_here(
    tmp_path: Path, step: Step, trials: str | None, command: str
) -> None:
    path = write_experiment(tmp_path)
    assert Order(path, load_config(path), step, trials).entrypoint == command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--trials", "$(id)"), "--trials is 40, say, or +10, not '$(id)'"),
        (("--step", "train"), "--step is search, ensemble or pipeline, not 'train'"),
        (
            ("--step", "ensemble", "--trials", "3"),
            "--trials is of a search or a pipeline, not of an ensemble",
        ),
    ],
)
def test_an_order_that_is_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    assert message in refusal(capsys, "submit", write_experiment(tmp_path), *ADDRESS, *words)
