"""The Python client of the service."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from search.errors import DamagedImageError, ServingError
from serving.schemas import ModelAnswer, PredictAnswer, Problem

M = TypeVar("M", bound=BaseModel)


class Client:
    """A connection to one service; safe to share between threads.

    >>> with Client("http://127.0.0.1:8000") as client:
    ...     answer = client.predict(Path("lesion.jpg"))
    """

    def __init__(self, url: str, *, timeout_s: float = 60) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(base_url=self._url, timeout=timeout_s)

    def predict(self, *images: Path | bytes, operating_point: str | None = None) -> PredictAnswer:
        """Predictions for image files, or files' bytes, in the order given.

        Raises:
            DamagedImageError: a file cannot be read.
            ServingError: the service cannot be reached, or its problem's code and detail.
        """
        files = [("image", (f"image {i}", _read(image))) for i, image in enumerate(images, 1)]
        params = {} if operating_point is None else {"operating_point": operating_point}
        response = self._send("POST", "/v1/predict", files=files, params=params)
        return self._parse(response, PredictAnswer)

    def model(self) -> ModelAnswer:
        """What is served.

        Raises:
            ServingError: as of predict.
        """
        return self._parse(self._send("GET", "/v1/model"), ModelAnswer)

    def ready(self) -> bool:
        """Whether the service can answer; False also where none can be reached."""
        try:
            return self._http.get("/readyz").is_success
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Let the connections go."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ServingError(
                f"{self._url}: cannot be reached ({reason}); check that the service runs there"
            ) from error
        if not response.is_success:
            raise ServingError(f"{self._url}: {_problem(response)}")
        return response

    def _parse(self, response: httpx.Response, kind: type[M]) -> M:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise ServingError(
                f"{self._url}: answers otherwise than this client expects; "
                "check the address, then update consilium"
            ) from error


def _read(image: Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return image.read_bytes()
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        raise DamagedImageError(f"{image}: {reason}; check the path") from error


def _problem(response: httpx.Response) -> str:
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:  # a proxy on the way, Ray Serve's own among them
        said = " ".join(response.text.split())[:200]
        return f"{response.status_code} {response.reason_phrase}: {said}"
    return f"{problem.code}: {problem.detail}"
