"""The Jobs API of a Ray that is elsewhere: every way it can fail is one line."""

import logging
import os
import re
from http import HTTPStatus
from typing import Any
from unittest.mock import patch

import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from search.errors import ClusterError

TIMEOUTS = (5.0, 60.0)  # seconds to connect, and between bytes
LARGEST_ANSWER = 300  # characters of an error of Ray's that are shown
TOKEN_MEND = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's"  # noqa: S105
TALKATIVE = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
# Ray would go by these rather than by the address it is given.
OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")


class JobsClient(JobSubmissionClient):
    """Ray's client, which raises nothing but ClusterError and never waits for ever."""

    def __init__(self, address: str) -> None:
        """Reach a cluster.

        Args:
            address: http://host:8265, or https; host:8265 is http.

        Raises:
            ClusterError: it is no such address, does not answer, wants another token, or is no
                Jobs API.
        """
        self.place = _checked_address(address)
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        bare = {name: value for name, value in os.environ.items() if name not in OVERRIDING}
        try:
            with patch.dict(os.environ, bare, clear=True):
                super().__init__(self.place)
        except AuthenticationError as error:
            raise ClusterError(f"{self.place}: no token at hand; {TOKEN_MEND}") from error
        except (ValueError, KeyError, RuntimeError, TypeError) as error:
            raise self._no_jobs_api() from error

    @property
    def ray_version(self) -> str:
        """Of the cluster."""
        return str(self._server_ray_version)

    def refuse_other_ray(self) -> None:
        """A job's code is this one's; so must the Ray under it be.

        Raises:
            ClusterError: another version of Ray is there.
        """
        if self.ray_version != ray.__version__:
            raise ClusterError(
                f"{self.place}: Ray {self.ray_version} is there, {ray.__version__} is here; "
                f"pip install 'ray[data,serve,tune]=={self.ray_version}' here, or start the "
                "cluster with this one's"
            )

    def job(self, job_id: str) -> JobDetails:
        """A job that was submitted here before.

        Raises:
            ClusterError: there is no such job, or it is not one of ours.
        """
        known = re.fullmatch(r"[A-Za-z0-9_.-]{1,160}", job_id)
        try:
            found = self.get_job_info(job_id) if known else None
        except _AbsentError:
            found = None
        if found is None or not is_ours(found):
            raise ClusterError(
                f"{self.place}: knows no job {job_id!r} of consilium submit; "
                "consilium status lists them"
            )
        return found

    def jobs(self) -> list[JobDetails]:
        """All of ours, the oldest first."""
        return sorted(filter(is_ours, self.list_jobs()), key=lambda job: job.start_time or 0)

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        """Ray's request, with a limit in time; a refusal is one line."""
        try:
            answer: requests.Response = super()._do_request(
                method, endpoint, timeout=TIMEOUTS, **options
            )
        except AuthenticationError as error:
            raise ClusterError(self._refusal(str(error))) from error
        except requests.exceptions.SSLError as error:
            raise ClusterError(
                f"{self.place}: no secure connection; check the certificate, or say http://"
            ) from error
        except requests.exceptions.Timeout as error:
            raise UnreachableError(self._unreachable("does not answer in time")) from error
        except requests.exceptions.RequestException as error:
            raise UnreachableError(self._unreachable("cannot be reached")) from error
        if endpoint == "/api/version" and not _is_version(answer):
            raise self._no_jobs_api()
        return answer

    def _raise_error(self, answer: requests.Response) -> None:
        """Ray's answers are tracebacks; their last line says it."""
        if answer.status_code == HTTPStatus.NOT_FOUND:
            raise _AbsentError(f"{self.place}: {_last_line(answer.text)}")
        if answer.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            raise ClusterError(f"{self.place}: takes no parcel of this size; raise its proxy's")
        raise ClusterError(f"{self.place}: {answer.status_code}: {_last_line(answer.text)}")

    def _refusal(self, said: str) -> str:
        if said.startswith("Authentication required"):
            return f"{self.place}: asks for a token; {TOKEN_MEND}"
        return f"{self.place}: refuses the token; {TOKEN_MEND}"

    def _unreachable(self, how: str) -> str:
        return (
            f"{self.place}: {how}; start a head with ray start --head --dashboard-host, open the "
            "way to its port 8265, or name another --address"
        )

    def _no_jobs_api(self) -> ClusterError:
        return ClusterError(
            f"{self.place}: is no Jobs API of Ray's; name the head's dashboard, "
            "http://head:8265 say"
        )


class UnreachableError(ClusterError):
    """A cluster that does not answer; it may come back."""


class _AbsentError(ClusterError):
    """The cluster knows nothing of that name."""


def is_ours(job: JobDetails) -> bool:
    """Whether `consilium submit` sent a job."""
    return bool(job.submission_id) and "consilium_step" in (job.metadata or {})


def _checked_address(address: str) -> str:
    """An URL of scheme, host and port.

    Raises:
        ClusterError: it is a Ray address, or none at all. What it holds of a login is not shown.
    """
    url = address if "://" in address else f"http://{address}"
    if not re.fullmatch(
        r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[^@?#\s]*)?", url
    ):
        shown = re.sub(r"(?<=://)[^/]*@", "", address)
        raise ClusterError(f"--address is http://head:8265, say, not {shown!r}")
    return url.rstrip("/")


def _is_version(answer: requests.Response) -> bool:
    try:
        return answer.ok and isinstance(answer.json()["ray_version"], str)
    except (ValueError, KeyError, TypeError):
        return False


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "no reason given")[:LARGEST_ANSWER]
