"""What jobs do: how they stand, what they say, and their end."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from aiohttp import ClientError
from ray.job_submission import JobDetails, JobStatus

from cluster.jobs.client import JobsClient, UnreachableError
from search.errors import ClusterError

PAUSE = 1.0  # seconds between looks at a job
PATIENCE = 120.0  # seconds for a head that went away to come back, and for a job to stop
Write = Callable[[str], object]


class JobFailedError(ClusterError):
    """A job that ended otherwise than by being done, or whose end nobody waited for."""

    exit_code = 1


def row_of(job: JobDetails, *, now: float | None = None) -> dict[str, Any]:
    """A job as a table's row; `since` in local time, seconds of work so far."""
    about = job.metadata or {}
    began = (job.start_time or 0) / 1000
    ended = job.end_time / 1000 if job.end_time else now or time.time()
    return {
        "id": job.submission_id,
        "step": about.get("consilium_step"),
        "experiment": about.get("experiment"),
        "status": job.status.value.lower(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began)) if began else None,
        "seconds": round(ended - began) if began else None,
        "message": _message(job),
    }


def follow(client: JobsClient, job_id: str, write: Write) -> JobDetails:
    """Hand on what a job says until it ends, over a head's short absence as well.

    Raises:
        ClusterError: the cluster stays away, or knows no such job.
        JobFailedError: whoever follows has stopped; the job goes on.
    """
    try:
        return asyncio.run(_follow(client, job_id, write))
    except KeyboardInterrupt:
        raise JobFailedError(
            f"{job_id} goes on without you; consilium logs {job_id} -f follows it, "
            f"consilium stop {job_id} stops it"
        ) from None


def stop(client: JobsClient, job_id: str) -> JobDetails:
    """Ask a job to stop, and wait until it has: SIGTERM, after three seconds SIGKILL.

    A job that has ended already stays as it ended. A study loses nothing either way.

    Raises:
        ClusterError: there is no such job, or it does not stop.
    """
    job = client.job(job_id)
    if not job.status.is_terminal():
        client.stop_job(job_id)
        job = wait_for_end(client, job_id)
    return job


def wait_for_end(client: JobsClient, job_id: str) -> JobDetails:
    """A job that is about to end.

    Raises:
        ClusterError: it does not, for two minutes.
    """
    last = time.monotonic() + PATIENCE
    while not (job := client.job(job_id)).status.is_terminal():
        if time.monotonic() > last:
            raise ClusterError(
                f"{job_id} has not ended within {PATIENCE:.0f} s; look at consilium status {job_id}"
            )
        time.sleep(PAUSE / 4)
    return job


def refuse_failed(job: JobDetails) -> None:
    """Let a job pass that is done.

    Raises:
        JobFailedError: it failed or was stopped.
    """
    if job.status == JobStatus.STOPPED:
        raise JobFailedError(f"{job.submission_id} was stopped; the same submit goes on")
    if job.status != JobStatus.SUCCEEDED:
        raise JobFailedError(
            f"{job.submission_id} failed: {_message(job)}; mend it and submit it again to go on"
        )


async def _follow(client: JobsClient, job_id: str, write: Write) -> JobDetails:
    written, lost = 0, None
    while True:
        position = 0
        async for text in _told(client, job_id):
            write(text[max(0, written - position) :])
            position += len(text)
            written = max(written, position)
        try:
            job = client.job(job_id)
        except UnreachableError:
            lost = lost or time.monotonic()
            if time.monotonic() - lost > PATIENCE:
                raise
        else:
            lost = None
            if job.status.is_terminal():
                return job
        await asyncio.sleep(PAUSE)


async def _told(client: JobsClient, job_id: str) -> AsyncIterator[str]:
    """A job's log from its beginning, as far as one connection bears it."""
    try:
        async for text in client.tail_job_logs(job_id):
            yield text
    except (RuntimeError, ClientError, OSError):
        return  # a head that restarts, say; the job's status tells whether it is there


def _message(job: JobDetails) -> str | None:
    """Ray's word, or the last line of the log of a job that failed."""
    lines = [line.strip() for line in (job.message or "").splitlines() if line.strip()]
    if not lines:
        return None
    return (lines[-1] if job.status == JobStatus.FAILED else lines[0])[:300]
