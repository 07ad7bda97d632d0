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
SILENCE = 30.0  # seconds without a word of a job's before the head is asked how it stands
SILENCES = 10  # then the log comes by a new connection; the path of the old one may be lost
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
    written, lost, ended = 0, None, False
    while True:
        position, whole = 0, False
        async for text in _told(client, job_id):
            whole = text is None
            if text is not None:
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
            if job.status.is_terminal() and (whole or ended):
                return job
            ended = job.status.is_terminal()  # its last words are still to be fetched
        await asyncio.sleep(PAUSE)


async def _told(client: JobsClient, job_id: str) -> AsyncIterator[str | None]:
    """A job's log from its beginning, as far as one connection bears it; None at its end."""
    log = client.tail_job_logs(job_id)
    try:
        while (text := await _next(client, job_id, log)) is not None:
            yield text
    except (RuntimeError, ClientError, OSError, UnreachableError):
        return  # a head that restarts, say; the job's status tells whether it is there
    yield None


async def _next(client: JobsClient, job_id: str, log: AsyncIterator[str]) -> str | None:
    """What comes next of a log; None at its end.

    Ray reads it without a heartbeat: a path that is lost (sleep, NAT) is silent for ever, and so
    is a job that has nothing to say.

    Raises:
        TimeoutError: nothing comes of a job that has ended, or for too long.
    """
    waiting = asyncio.ensure_future(_piece(log))
    try:
        for _ in range(SILENCES):
            await asyncio.wait({waiting}, timeout=SILENCE)
            if waiting.done():
                return waiting.result()
            if client.job(job_id).status.is_terminal():
                break
    finally:
        if waiting.cancel():
            await asyncio.wait({waiting})
    raise TimeoutError


async def _piece(log: AsyncIterator[str]) -> str | None:
    return await anext(log, None)


def _message(job: JobDetails) -> str | None:
    """Ray's word, or the last line of the log of a job that failed."""
    lines = [line.strip() for line in (job.message or "").splitlines() if line.strip()]
    if not lines:
        return None
    return (lines[-1] if job.status == JobStatus.FAILED else lines[0])[:300]
