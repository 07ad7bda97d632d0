"""A step of an experiment, sent to a cluster as a Ray Job."""

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ray.job_submission import JobDetails

from cluster.connect import ALLOCATOR
from cluster.jobs.client import JobsClient
from cluster.jobs.parcel import CONFIG, Parcel, packed
from search.config import ExperimentConfig
from search.errors import ClusterError

Step = Literal["search", "ensemble", "pipeline"]
SECRET_NAMES = ("PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL")
# A login within a URL, as databases and brokers have it.
LOGIN = re.compile(r"://[^/?#\s@]*:[^/?#\s@]+@")


@dataclass(frozen=True)
class Order:
    """What a job is to do."""

    path: Path  # of the experiment's YAML
    settings: ExperimentConfig
    step: Step = "search"
    trials: str | None = None
    environment: Mapping[str, str] | None = None

    @property
    def study(self) -> str:
        return str(self.settings.study_folder)

    @property
    def entrypoint(self) -> str:
        """The command in the job's folder; in the shell's place, so that a stop reaches it."""
        words = ["exec python -m cluster", self.step, CONFIG]
        return " ".join([*words, *(["--trials", self.trials] if self.trials else [])])


def submit(client: JobsClient, order: Order) -> str:
    """Send a step of an experiment to a cluster, together with the code it is made of.

    Returns:
        The job's id; the job may still wait for its turn.

    Raises:
        ConfigError: a mistake in the experiment's YAML.
        ClusterError: the experiment is at work there already, the cluster has another Ray, or it
            does not take the job.
    """
    client.refuse_other_ray()
    with packed(order.path, order.settings) as parcel:
        _refuse_busy(client, order)
        job_id = f"consilium-{order.step}-{order.settings.name}-{secrets.token_hex(3)}"
        sent: str = client.submit_job(
            entrypoint=order.entrypoint,
            submission_id=job_id,
            metadata=_metadata(order, parcel),
            runtime_env={
                "working_dir": str(parcel.folder),
                "env_vars": {**ALLOCATOR, **(order.environment or {})},
            },
        )
    return sent


def checked_environment(names: Sequence[str]) -> dict[str, str]:
    """The values here of variables that a job is to have.

    Raises:
        ClusterError: a name or a value looks like a secret, or there is no such variable.
    """
    for name in names:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            given = name.partition("=")[0]
            raise ClusterError(f"--env is a variable's name alone, whose value is here: {given}")
        if name not in os.environ:
            raise ClusterError(f"--env {name}: is not set here; export it first")
        secret_name = any(word in name.upper() for word in SECRET_NAMES)
        if secret_name or LOGIN.search(os.environ[name]):
            raise ClusterError(
                f"--env {name}: looks like a secret, and whoever sees the dashboard would see it; "
                "set it in the environment of the cluster's nodes"
            )
    return {name: os.environ[name] for name in names}


def _metadata(order: Order, parcel: Parcel) -> dict[str, str]:
    """What a job says of itself; anyone who sees the dashboard reads it."""
    return {
        "consilium_step": order.step,
        "experiment": order.settings.name,
        "study": order.study,
        "output": str(order.settings.output),
        "config": parcel.digest,
    }


def _refuse_busy(client: JobsClient, order: Order) -> None:
    for job in client.jobs():
        if not job.status.is_terminal() and _clashes(job, order):
            raise ClusterError(
                f"{job.submission_id} is at work on this study ({job.status.value.lower()}); "
                f"consilium logs {job.submission_id} -f follows it, "
                f"consilium stop {job.submission_id} stops it"
            )


def _clashes(job: JobDetails, order: Order) -> bool:
    """A pipeline is a search and an ensemble as well."""
    about = job.metadata or {}
    steps = {about.get("consilium_step"), order.step}
    return about.get("study") == order.study and (len(steps) == 1 or "pipeline" in steps)
