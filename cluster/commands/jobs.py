"""`consilium submit`, `status`, `logs`, `stop`: Ray Jobs."""

import os
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands.options import AsJson, Config, JobsAddress
from cluster.console import messages, print_json, table

if TYPE_CHECKING:
    from cluster.jobs.submission import Step

jobs = typer.Typer()
JobId = Annotated[str, typer.Argument(metavar="ID", help="as consilium status shows it")]


@jobs.command()
def submit(
    config: Config,
    address: JobsAddress,
    step: Annotated[str, typer.Option(help="search, ensemble or pipeline")] = "search",
    trials: Annotated[
        str | None,
        typer.Option(help="of a search or a pipeline: 40 for so many in all, +10 for so many more"),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="a variable whose value here the job is to have; whoever sees the dashboard sees "
            "it, so secrets belong to the cluster's own environment; may be said again",
        ),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="leave once the job is there; its log goes on")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a step on a cluster, with the code of here; the same again goes on where it stopped."""
    from cluster.jobs import following, submission
    from cluster.jobs.client import JobsClient
    from cluster.jobs.parcel import local_folders
    from search.config import load_config

    checked = _checked_step(step, trials)
    settings = load_config(config)
    environment = submission.checked_environment(env or [])
    order = submission.Order(config, settings, checked, trials, environment)
    client = JobsClient(address)
    job_id = submission.submit(client, order)
    folders = ", ".join(map(str, local_folders(config, settings, search=step == "search")))
    messages.print(f"the cluster's nodes must see these folders: {folders}", soft_wrap=True)
    messages.print(f"job: {job_id}", soft_wrap=True)
    job = client.job(job_id) if no_wait else following.follow(client, job_id, _to_stderr)
    row = following.row_of(job)
    print_json(row) if as_json else table("Job", [row])
    if not no_wait:
        following.refuse_failed(job)


@jobs.command()
def status(
    address: JobsAddress,
    job: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="of one job; all if absent")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print how the jobs stand that `consilium submit` sent to a cluster."""
    from cluster.jobs.client import JobsClient
    from cluster.jobs.following import row_of

    client = JobsClient(address)
    rows = [row_of(one) for one in ([client.job(job)] if job else client.jobs())]
    if as_json:
        print_json(rows[0] if job else {"jobs": rows})
        return
    if not rows:
        messages.print(f"{client.place}: no jobs of consilium submit yet", soft_wrap=True)
        return
    table(f"Jobs on {client.place}", rows)


@jobs.command()
def logs(
    job: JobId,
    address: JobsAddress,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="until the job ends, and end as it did")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a job has said."""
    from cluster.jobs import following
    from cluster.jobs.client import JobsClient

    client = JobsClient(address)
    found = client.job(job)
    try:
        if follow:
            found = following.follow(client, job, _to_stderr if as_json else _to_stdout)
        if as_json:
            print_json(following.row_of(found) | {"log": client.get_job_logs(job)})
        elif not follow:
            _to_stdout(client.get_job_logs(job))
    except BrokenPipeError:  # whoever read has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if follow:
        following.refuse_failed(found)


@jobs.command()
def stop(job: JobId, address: JobsAddress, as_json: AsJson = False) -> None:
    """Stop a job and wait until it has ended; a study that is submitted again goes on."""
    from cluster.jobs import following
    from cluster.jobs.client import JobsClient

    row = following.row_of(following.stop(JobsClient(address), job))
    print_json(row) if as_json else table("Job", [row])


def _checked_step(step: str, trials: str | None) -> "Step":
    if trials is not None and not re.fullmatch(r"\+?[1-9][0-9]{0,5}", trials):
        raise typer.BadParameter(f"--trials is 40, say, or +10, not {trials!r}")
    if trials is not None and step == "ensemble":
        raise typer.BadParameter("--trials is of a search or a pipeline, not of an ensemble")
    if step == "search":
        return "search"
    if step == "ensemble":
        return "ensemble"
    if step == "pipeline":
        return "pipeline"
    raise typer.BadParameter(f"--step is search, ensemble or pipeline, not {step!r}")


def _to_stderr(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
