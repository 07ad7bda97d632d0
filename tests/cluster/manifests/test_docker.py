"""The Dockerfiles: linted, pinned, nobody's root, and in step with the code."""

import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from cluster.connect import ALLOCATOR
from serving.http.front import OPEN
from tests.cluster.manifests.objects import ROOT, all_pods

FOLDER = ROOT / "cluster" / "docker"
NAMES = ("train", "serve")
HADOLINT = Path(sys.executable).parent / "hadolint"


def dockerfile(name: str) -> Path:
    return FOLDER / f"{name}.Dockerfile"


def instructions(name: str) -> list[str]:
    """One a line, without comments."""
    text = re.sub(r"(?m)^\s*#.*\n", "", dockerfile(name).read_text())
    return [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line]


def last_stage(name: str) -> list[str]:
    lines = instructions(name)
    return lines[max(i for i, line in enumerate(lines) if line.startswith("FROM")) :]


def lint(path: Path) -> str:
    command = [str(HADOLINT), "--no-color", "--failure-threshold", "style", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize(("name", "overlooked"), [("train", ["DL3008"]), ("serve", [])])
def test_hadolint_finds_nothing_and_overlooks_what_is_argued(
    name: str, overlooked: list[str]
) -> None:
    assert lint(dockerfile(name)) == ""
    text = dockerfile(name).read_text()
    assert re.findall(r"(?m)^# hadolint ignore=(\S+)$", text) == overlooked
    assert text.count("hadolint") == len(overlooked)
    assert all(re.search(rf"(?m)^# {rule} would ", text) for rule in overlooked)


def test_hadolint_finds_what_is_wrong(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text("FROM python:latest\nRUN pip install ray\n")
    assert "DL3007" in lint(broken)
    assert "DL3013" in lint(broken)


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_starts_from_one_pinned_python(name: str) -> None:
    bases = [line for line in instructions(name) if line.startswith("FROM")]
    assert len(bases) == 2
    assert {base.split()[1] for base in bases} == {"python:3.11.14-slim-bookworm"}


@pytest.mark.parametrize("name", NAMES)
def test_every_package_is_of_the_pinned_version(name: str) -> None:
    installs = [line for line in instructions(name) if "pip install" in line]
    assert installs
    assert all("--constraint constraints.txt" in line for line in installs)


@pytest.mark.parametrize("name", NAMES)
def test_extras_that_are_installed_are_ones_that_the_project_has(name: str) -> None:
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (extras,) = re.findall(r"'\.\[(.*)\]'", dockerfile(name).read_text())
    assert set(extras.split(",")) <= set(known) - {"dev"}


def test_what_only_training_needs_is_not_in_the_service() -> None:
    (extras,) = re.findall(r"'\.\[(.*)\]'", dockerfile("serve").read_text())
    assert extras == "s3"
    assert "boto3" not in dockerfile("serve").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_last_stage_builds_nothing_and_ends_as_the_user_that_pods_are(name: str) -> None:
    lines = last_stage(name)
    assert not [line for line in lines if re.search(r"pip install|gcc|curl", line)]
    (user,) = [line.split()[1] for line in lines if line.startswith("USER")]
    ours = [pod for pod in all_pods() if pod.containers[0]["image"].startswith("consilium")]
    assert {
        f"{p.spec['securityContext']['runAsUser']}:{p.spec['securityContext']['runAsGroup']}"
        for p in ours
    } == {user}
    assert 'ENTRYPOINT ["consilium"]' in lines


def test_the_launcher_can_copy_into_training_nodes_and_reach_workers_from_the_head() -> None:
    (line,) = [line for line in last_stage("train") if "apt-get" in line]
    assert line.startswith("RUN apt-get update && apt-get install --yes --no-install-recommends ")
    assert line.endswith(" openssh-client rsync && rm -rf /var/lib/apt/lists/*")
    assert not [line for line in instructions("serve") if "apt-get" in line]


@pytest.mark.parametrize("name", NAMES)
def test_labels_tell_the_projects_version(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"ARG VERSION={version}" in last_stage(name)
    assert f'title="consilium-{name}"' in dockerfile(name).read_text()
    assert f"consilium-{name}:{version}" in dockerfile(name).read_text()


def test_training_frees_memory_as_where_the_command_starts_ray_itself() -> None:
    (line,) = [line for line in last_stage("train") if line.startswith("ENV")]
    found = dict(word.split("=", 1) for word in line.split()[1:])
    assert ALLOCATOR.items() <= found.items()


def test_the_services_health_is_a_path_that_it_answers_to_anyone() -> None:
    (line,) = [line for line in last_stage("serve") if line.startswith("HEALTHCHECK")]
    (path,) = re.findall(r"http://127\.0\.0\.1:8000(/\w+)", line)
    assert path in OPEN


@pytest.mark.parametrize("name", NAMES)
def test_no_layer_is_given_a_secret(name: str) -> None:
    text = "\n".join(instructions(name))
    assert not re.search(r"(?i)password|token|secret|_key\b", text)
    for line in (line for line in instructions(name) if line.startswith("COPY")):
        assert line.split()[1] != "."


@pytest.mark.parametrize("name", NAMES)
def test_the_builder_is_given_what_is_copied_and_nothing_else(name: str) -> None:
    rules = (FOLDER / f"{name}.Dockerfile.dockerignore").read_text().splitlines()
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        word
        for line in instructions(name)
        if line.startswith("COPY") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert rules[1] == "*"
    assert let_in == copied
    shut = [rule for rule in rules[2:] if not rule.startswith("!")]
    for path in ("cluster/kuberay/secrets.yaml", "cluster/site.pem", "search/__pycache__"):
        assert any(fnmatch(path, rule) for rule in shut)
    assert all((ROOT / word).exists() for word in copied)
