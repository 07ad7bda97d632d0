"""The commands under README's "Where it runs": each is given here, or the reason why not stands."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.jobs.heads import Head, started_head
from tests.experiments import write_experiment

ROOT = Path(__file__).parents[1]
CONFIG, JOBS = "configs/isic2357.yaml", r"--address http://\S+"
ELSEWHERE = {  # commands that other tests run, or that nothing here can
    "kubectl apply -k cluster/kuberay": "kubectl kustomize builds it below",
    "kubectl apply -f cluster/kuberay/rayservice.yaml": "no cluster; its schemas are tested",
    "kubectl -n consilium port-forward service/consilium-serve-svc 8000": "no cluster",
    "ray up cluster/aws.yaml": "no AWS; Ray's own checks of the file are tested",
    "ray down cluster/aws.yaml": "no AWS",
    f"sbatch --nodes=4 cluster/slurm.sbatch {CONFIG}": "tests/cluster/manifests/test_slurm.py",
    "squeue --me": "Slurm's own",
    "tail -f consilium-JOBID.log": "the log's name is the script's",
}
HERE = (
    f"consilium doctor {CONFIG}",
    f"consilium pipeline {CONFIG}",
    "consilium score outputs/isic2357/bundle images.csv",
    f"consilium submit {CONFIG} --address http://head:8265",
    "consilium status --address http://head:8265",
    "consilium logs ID -f --address http://head:8265",
    f"consilium submit {CONFIG} --address http://127.0.0.1:8265",
)


def commands() -> list[str]:
    """Those of the section, each with single spaces and without its comment."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split("## Where it runs")[1].split("```")[1]
    lines = [line.partition(" #")[0] for line in block.splitlines() if line.strip()]
    return [" ".join(line.split()) for line in lines]


def test_each_command_is_run_or_the_reason_stands() -> None:
    assert set(commands()) == {*HERE, *ELSEWHERE}


def test_kubectl_builds_what_is_applied() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    built = subprocess.run(
        ["kubectl", "kustomize", ROOT / "cluster/kuberay"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "kind: NetworkPolicy" in built.stdout


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("experiment"), budget={"trials": 2})


def given(command: str, experiment: Path, **words: str) -> list[str]:
    """README's words with the test's own files in place of the names there."""
    places = {
        CONFIG: str(experiment),
        "outputs/isic2357/bundle": str(experiment.parent / "out" / "bundle"),
        "images.csv": str(experiment.parent / "data" / "metadata.csv"),
        **words,
    }
    words_of = re.sub(JOBS, "", command).split()[1:]
    return [places.get(word, word) for word in words_of]


def consilium(*words: str) -> Any:
    """What the command says as JSON; it must exit with 0."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster", *words, "--json"],
        check=False, capture_output=True, text=True, timeout=280, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_laptop_s_commands(experiment: Path, tmp_path: Path) -> None:
    doctor, pipeline, score = (given(command, experiment) for command in HERE[:3])
    assert consilium(*doctor)
    assert consilium(*pipeline)
    images = str(experiment.parent / "data" / "images")
    output = str(tmp_path / "scores.csv")
    found = consilium(*score, "--images", images, "--column", "image_id", "--output", output)
    assert (found["images"], found["errors"]) == (64, {})


@pytest.mark.slow
def test_the_commands_of_a_cluster(experiment: Path) -> None:
    submit, status, logs = (given(command, experiment) for command in HERE[3:6])
    with started_head() as head:
        name = asked(head, *submit)["id"]
        assert name in json.dumps(asked(head, *status))
        followed = head.consilium(*(name if word == "ID" else word for word in logs))
        assert followed.returncode == 0, followed.stderr


def asked(head: Head, *words: str) -> Any:
    done = head.consilium(*words, "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
