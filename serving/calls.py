"""What the clients ask of the service and make of its answers: no socket, no waiting.

Each call of the interface is one function here; client.py sends it, at once or awaited.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from search.errors import ConfigError, DamagedImageError, ServingError
from serving.config import Rollout, as_user_config
from serving.retries import Attempts, Retries, is_busy, parse_retry_after
from serving.schemas import ExplainAnswer, Health, ModelAnswer, PredictAnswer, Problem
from serving.scoring.state import RolloutState

M = TypeVar("M", bound=BaseModel)
# Nothing was sent yet. A connection that breaks later may have been answered: not tried again.
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
MAX_ANSWER_BYTES = 256 * 1024 * 1024
ROLLOUT = "/v1/admin/rollout"


@dataclass(frozen=True)
class Call(Generic[M]):
    """One request, and the type of what it is answered by."""

    method: str
    path: str
    answer: type[M]
    params: tuple[tuple[str, str], ...] = ()
    files: tuple[bytes, ...] = ()
    json: Any = None
    idempotent: bool = True

    def parts(self) -> dict[str, Any]:
        """For httpx.build_request; one image goes as the body itself, which is read faster."""
        parts: dict[str, Any] = {"method": self.method, "url": self.path, "params": self.params}
        if self.json is not None:
            return parts | {"json": self.json}
        if len(self.files) > 1:
            named = [("image", (f"image {i}", file)) for i, file in enumerate(self.files, 1)]
            return parts | {"files": named}
        if self.method == "POST":
            kind = {"Content-Type": "application/octet-stream"}
            return parts | {"content": b"".join(self.files), "headers": kind}
        return parts


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    reason: str
    retry_after: float | None
    content: bytes


Outcome = Reply | httpx.HTTPError | httpx.InvalidURL


class Side:
    """One end of the connection, whichever client holds it: what it sends, waits for and makes of
    an answer.
    """

    def __init__(self, url: str, key: str | None, retries: Retries, limits: tuple[float, float]):
        self._url, self._retries, self._limits = url.rstrip("/"), retries, limits
        self._rng = random.SystemRandom()
        self._key = key or ""
        # httpx would quote a header that it refuses, and with it the key.
        if not (self._key.isascii() and self._key.isprintable() and " " not in self._key):
            raise ConfigError("the API key has characters that no key has; copy it again")
        try:
            self._shown = str(httpx.URL(self._url).copy_with(userinfo=b""))
        except (httpx.InvalidURL, TypeError) as error:
            shown = self._url.rpartition("@")[2]
            raise ConfigError(f"{shown}: no address; one looks like http://host:8000") from error

    @property
    def options(self) -> dict[str, Any]:
        """For httpx.Client and httpx.AsyncClient."""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        return {"base_url": self._url, "headers": headers, "follow_redirects": False}

    def attempts(self) -> Attempts:
        return Attempts(self._retries, rng=self._rng)

    def timeout(self, attempts: Attempts) -> httpx.Timeout:
        connect, read = (max(min(limit, attempts.left_s), 0.001) for limit in self._limits)
        return httpx.Timeout(read, connect=connect, pool=connect)

    def wait(self, call: Call[M], outcome: Outcome, attempts: Attempts) -> float | None:
        """Seconds before the call is sent again; None where it is not."""
        if not call.idempotent:
            return None
        if isinstance(outcome, Reply):
            busy = is_busy(outcome.status)
            return attempts.next_wait(outcome.retry_after) if busy else None
        return attempts.next_wait() if isinstance(outcome, UNSENT) else None

    def take(self, body: bytearray, chunk: bytes, attempts: Attempts) -> None:
        if len(body) + len(chunk) > MAX_ANSWER_BYTES:
            raise ServingError(f"{self._shown}: the answer has more than {MAX_ANSWER_BYTES} bytes")
        if attempts.left_s == 0:
            raise httpx.ReadTimeout("the answer was not whole in time")
        body += chunk

    def settle(self, call: Call[M], outcome: Outcome) -> M:
        """The answer.

        Raises:
            ServingError: there is none.
        """
        if not isinstance(outcome, Reply):
            reason = self._hide(" ".join(str(outcome).split()) or type(outcome).__name__)
            raise ServingError(
                f"{self._shown}: cannot be reached ({reason}); check that the service runs there"
            ) from outcome
        if not 200 <= outcome.status < 300:
            raise ServingError(f"{self._shown}: {self._hide(_problem(outcome))}")
        try:
            return call.answer.model_validate_json(outcome.content)
        except ValidationError as error:
            raise ServingError(
                f"{self._shown}: answers otherwise than this client expects; "
                "check the address, then update consilium"
            ) from error

    def _hide(self, text: str) -> str:
        """Whatever is said, by a proxy that echoes headers too, without the key."""
        return text.replace(self._key, "***") if self._key else text


def as_reply(response: httpx.Response, content: bytes) -> Reply:
    """A response whose body was read."""
    after = parse_retry_after(response.headers.get("retry-after"))
    return Reply(response.status_code, response.reason_phrase, after, content)


def predict(
    files: Sequence[bytes],
    *,
    operating_point: str | None,
    prevalence: Mapping[str, float] | None,
    members: bool,
    explain: bool,
) -> Call[PredictAnswer]:
    """POST /v1/predict; scoring changes nothing, so that it may be sent twice."""
    params = [] if operating_point is None else [("operating_point", operating_point)]
    # repr of a float is the shortest text that reads back as the same.
    shares = (prevalence or {}).items()
    params += [("prevalence", f"{name}:{float(share)!r}") for name, share in shares]
    flags = {"members": members, "explain": explain}
    params += [(name, "true") for name, is_set in flags.items() if is_set]
    return Call("POST", "/v1/predict", PredictAnswer, tuple(params), tuple(files))


def explain(file: bytes, class_name: str | None) -> Call[ExplainAnswer]:
    """POST /v1/explain."""
    params = () if class_name is None else (("class", class_name),)
    return Call("POST", "/v1/explain", ExplainAnswer, params, (file,))


def set_rollout(rollout: Rollout) -> Call[RolloutState]:
    """PUT /v1/admin/rollout; the same rollout twice is the same as once."""
    return Call("PUT", ROLLOUT, RolloutState, json=as_user_config(rollout))


MODEL = Call("GET", "/v1/model", ModelAnswer)
READY = Call("GET", "/readyz", Health, idempotent=False)  # who polls sees to the next time himself
GET_ROLLOUT = Call("GET", ROLLOUT, RolloutState)
ROLLBACK = Call("POST", "/v1/admin/rollback", RolloutState, idempotent=False)
PROMOTE = Call("POST", "/v1/admin/promote", RolloutState, idempotent=False)


def read(image: Path | bytes) -> bytes:
    """An image file's bytes.

    Raises:
        DamagedImageError: it cannot be read.
    """
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise DamagedImageError(f"{image}: {reason}; check the path") from error


def _problem(reply: Reply) -> str:
    try:
        problem = Problem.model_validate_json(reply.content)
    except ValidationError:  # a proxy on the way, Ray Serve's own among them
        said = " ".join(reply.content[:800].decode("utf-8", "replace").split())[:200]
        return f"{reply.status} {reply.reason}: {said}"
    return f"{problem.code}: {problem.detail}"
