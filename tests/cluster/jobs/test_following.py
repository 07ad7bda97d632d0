"""Following a job: its log once, whatever becomes of the connection, and its end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType

from cluster.jobs import following
from cluster.jobs.client import JobsClient, UnreachableError
from cluster.jobs.following import JobFailedError, follow, refuse_failed, row_of
from search.errors import ClusterError

LOG = ["one\n", "two\n", "three\n"]
AWAY = UnreachableError("cannot be reached")


def a_job(status: str, message: str | None = None, **about: Any) -> JobDetails:
    return JobDetails(
        type=JobType.SUBMISSION,
        status=JobStatus(status),
        entrypoint="",
        submission_id="consilium-search-tiny-0a1b2c",
        message=message,
        metadata={"consilium_step": "search", "experiment": "tiny"},
        **about,
    )


class Connection:
    """A cluster: so many pieces of the log come before each connection breaks."""

    def __init__(self, pieces: Sequence[int], answers: Sequence[JobDetails | Exception]) -> None:
        self._pieces, self._answers = list(pieces), list(answers)

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        n_pieces = self._pieces.pop(0)
        for text in LOG[:n_pieces]:
            yield text
        if n_pieces < len(LOG):
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def job(self, _: str) -> JobDetails:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Silent:
    """A cluster whose first connections say so many pieces of the log and then nothing."""

    def __init__(self, pieces: Sequence[int], answers: Sequence[JobDetails | Exception]) -> None:
        self.pieces, self.answers, self.n_closed = list(pieces), list(answers), 0

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        n_pieces = self.pieces.pop(0)
        try:
            for text in LOG[:n_pieces]:
                yield text
            while n_pieces < len(LOG):
                await asyncio.sleep(3600)
        finally:
            self.n_closed += 1

    def job(self, _: str) -> JobDetails:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Slow(Silent):
    """One connection, which is silent until the job was asked for."""

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        self.pieces.pop(0)
        n_answers = len(self.answers)
        for text in LOG:
            while len(self.answers) == n_answers:
                await asyncio.sleep(0.001)
            yield text


def followed(connection: Connection | Silent, said: list[str]) -> JobDetails:
    return follow(cast(JobsClient, connection), "id", said.append)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PAUSE", 0.0)


def test_what_was_told_is_not_told_again_after_a_break() -> None:
    said: list[str] = []
    answers: list[JobDetails | Exception] = [
        a_job("RUNNING"),
        AWAY,
        a_job("RUNNING"),
        a_job("SUCCEEDED"),
    ]
    job = followed(Connection([2, 0, 1, 3], answers), said)
    assert (job.status, "".join(said)) == (JobStatus.SUCCEEDED, "".join(LOG))


def test_a_cluster_that_stays_away_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PATIENCE", -1.0)
    with pytest.raises(ClusterError, match=r"^cannot be reached$"):
        followed(Connection([1, 0], [AWAY, AWAY]), [])


def test_a_silent_path_is_given_up_and_the_log_goes_on_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "SILENCE", 0.01)
    monkeypatch.setattr(following, "SILENCES", 2)
    said: list[str] = []
    alive, done = a_job("RUNNING"), a_job("SUCCEEDED")
    # Silent twice, then the head is away, then the job has ended; its log comes once more, whole.
    silent = Silent([1, 2, 2, 3], [*[alive] * 3, AWAY, AWAY, done, done, done])
    job = followed(silent, said)
    assert (job.status, "".join(said)) == (JobStatus.SUCCEEDED, "".join(LOG))
    assert (silent.pieces, silent.answers, silent.n_closed) == ([], [], 4)


def test_a_job_that_has_ended_is_not_waited_for_when_its_log_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "SILENCE", 0.01)
    silent = Silent([1, 1], [a_job("STOPPED")] * 4)
    assert followed(silent, []).status == JobStatus.STOPPED
    assert (silent.pieces, silent.answers) == ([], [])


def test_a_job_with_nothing_to_say_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SILENCE", 0.01)
    said: list[str] = []
    slow = Slow([3], [a_job("RUNNING"), a_job("SUCCEEDED")])
    assert followed(slow, said).status == JobStatus.SUCCEEDED
    assert said == LOG


def test_a_reader_that_goes_away_is_not_taken_for_a_break() -> None:
    def full(text: str) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError, match=r"^$"):
        follow(cast(JobsClient, Connection([3], [])), "id", full)


def test_whoever_stops_following_does_not_stop_the_job() -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(JobFailedError, match=r"^id goes on without you; consilium logs id -f"):
        follow(cast(JobsClient, Connection([3], [])), "id", interrupt)


def test_a_failed_job_ends_with_the_last_line_of_its_log() -> None:
    message = "Job entrypoint command failed with exit code 2, last logs:\nx\nconsilium: mend it\n"
    with pytest.raises(JobFailedError, match=r"-0a1b2c failed: consilium: mend it; mend") as failed:
        refuse_failed(a_job("FAILED", message))
    assert failed.value.exit_code == 1


def test_a_stopped_job_is_no_success() -> None:
    with pytest.raises(JobFailedError, match=r"was stopped; the same submit goes on"):
        refuse_failed(a_job("STOPPED"))
    refuse_failed(a_job("SUCCEEDED"))


@pytest.mark.parametrize(("ended", "seconds"), [(None, 30), (1_010_000, 10)])
def test_a_row_counts_to_the_end_or_to_now(ended: int | None, seconds: int) -> None:
    row = row_of(a_job("RUNNING", start_time=1_000_000, end_time=ended), now=1030.0)
    assert row["seconds"] == seconds
    assert (row["step"], row["experiment"], row["status"]) == ("search", "tiny", "running")


def test_a_job_that_has_not_begun_has_no_seconds() -> None:
    row = row_of(a_job("PENDING"))
    assert (row["since"], row["seconds"], row["message"]) == (None, None, None)
