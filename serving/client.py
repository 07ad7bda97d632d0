"""The Python clients of the service: one that waits, one for asyncio; they differ in no more."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, closing
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from pydantic import BaseModel

from search.errors import ServingError
from serving import calls
from serving.calls import Call, Outcome, Side, as_reply
from serving.config import Rollout
from serving.retries import Attempts, Retries
from serving.schemas import ExplainAnswer, ModelAnswer, PredictAnswer
from serving.scoring.state import RolloutState

M = TypeVar("M", bound=BaseModel)
DEFAULT = Retries()


class Client:
    """A connection to one service; safe to share between threads.

    Calls that change nothing are sent again where the service is busy (429, 503) or could not be
    reached at all (see serving.retries).

    >>> with Client("http://127.0.0.1:8000") as client:
    ...     answer = client.predict(Path("lesion.jpg"))
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60,
        connect_s: float = 5,
        retries: Retries = DEFAULT,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Nothing is sent yet.

        Args:
            timeout_s: longest silence of the service.
            connect_s: longest wait for a connection.

        Raises:
            ConfigError: an address or a key that is none.
        """
        self._side = Side(url, api_key, retries, (connect_s, timeout_s))
        self._http = httpx.Client(**self._side.options)
        self._sleep = sleep

    def predict(
        self,
        *images: Path | bytes,
        operating_point: str | None = None,
        prevalence: Mapping[str, float] | None = None,
        members: bool = False,
        explain: bool = False,
    ) -> PredictAnswer:
        """Predictions for image files, or files' bytes, in the order given.

        Args:
            prevalence: class: share of it where the probabilities are to hold, too.
            members: each member's own probabilities, too.
            explain: with a map of where each image speaks for the class.

        Raises:
            DamagedImageError: a file cannot be read.
            ServingError: the service cannot be reached, or its problem's code and detail.
        """
        call = calls.predict(
            [calls.read(image) for image in images],
            operating_point=operating_point,
            prevalence=prevalence,
            members=members,
            explain=explain,
        )
        return self._ask(call)

    def explain(self, image: Path | bytes, class_name: str | None = None) -> ExplainAnswer:
        """Where an image speaks for a class; the bundle's positive one if none is named.

        Raises:
            DamagedImageError, ServingError: as of predict.
        """
        return self._ask(calls.explain(calls.read(image), class_name))

    def model(self) -> ModelAnswer:
        """What is served.

        Raises:
            ServingError: as of predict.
        """
        return self._ask(calls.MODEL)

    def ready(self) -> bool:
        """Whether the service can answer; False also where none can be reached. Asks once."""
        try:
            self._ask(calls.READY)
        except ServingError:
            return False
        return True

    def rollout(self) -> RolloutState:
        """Which bundles are to be served. This and what follows needs a key with scope admin.

        Raises:
            ServingError: as of predict.
        """
        return self._ask(calls.GET_ROLLOUT)

    def set_rollout(self, rollout: Rollout) -> RolloutState:
        """Serve otherwise; what is new is loaded and checked beside the requests.

        Paths are those of the service's machine: absolute ones.

        Raises:
            ServingError: as of predict.
        """
        return self._ask(calls.set_rollout(rollout))

    def rollback(self) -> RolloutState:
        """Go back to the rollout before. Sent once: twice would undo it.

        Raises:
            ServingError: as of predict.
        """
        return self._ask(calls.ROLLBACK)

    def promote(self) -> RolloutState:
        """Let the canary answer all requests. Sent once.

        Raises:
            ServingError: as of predict.
        """
        return self._ask(calls.PROMOTE)

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

    def _ask(self, call: Call[M]) -> M:
        attempts = self._side.attempts()
        while True:
            outcome = self._send(call, attempts)
            wait = self._side.wait(call, outcome, attempts)
            if wait is None:
                return self._side.settle(call, outcome)
            self._sleep(wait)

    def _send(self, call: Call[M], attempts: Attempts) -> Outcome:
        body = bytearray()
        try:
            timeout = self._side.timeout(attempts)
            request = self._http.build_request(**call.parts(), timeout=timeout)
            with closing(self._http.send(request, stream=True)) as response:
                for chunk in response.iter_bytes():
                    self._side.take(body, chunk, attempts)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return error
        return as_reply(response, bytes(body))


class AsyncClient:
    """The same for asyncio: every call as of Client, awaited.

    >>> async with AsyncClient("http://127.0.0.1:8000") as client:
    ...     answer = await client.predict(Path("lesion.jpg"))
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 60,
        connect_s: float = 5,
        retries: Retries = DEFAULT,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """As Client's."""
        self._side = Side(url, api_key, retries, (connect_s, timeout_s))
        self._http = httpx.AsyncClient(**self._side.options)
        self._sleep = sleep

    async def predict(
        self,
        *images: Path | bytes,
        operating_point: str | None = None,
        prevalence: Mapping[str, float] | None = None,
        members: bool = False,
        explain: bool = False,
    ) -> PredictAnswer:
        """As Client.predict; files are read beside the event loop."""
        call = calls.predict(
            [await asyncio.to_thread(calls.read, image) for image in images],
            operating_point=operating_point,
            prevalence=prevalence,
            members=members,
            explain=explain,
        )
        return await self._ask(call)

    async def explain(self, image: Path | bytes, class_name: str | None = None) -> ExplainAnswer:
        """As Client.explain."""
        return await self._ask(
            calls.explain(await asyncio.to_thread(calls.read, image), class_name)
        )

    async def model(self) -> ModelAnswer:
        """As Client.model."""
        return await self._ask(calls.MODEL)

    async def ready(self) -> bool:
        """As Client.ready."""
        try:
            await self._ask(calls.READY)
        except ServingError:
            return False
        return True

    async def rollout(self) -> RolloutState:
        """As Client.rollout."""
        return await self._ask(calls.GET_ROLLOUT)

    async def set_rollout(self, rollout: Rollout) -> RolloutState:
        """As Client.set_rollout."""
        return await self._ask(calls.set_rollout(rollout))

    async def rollback(self) -> RolloutState:
        """As Client.rollback."""
        return await self._ask(calls.ROLLBACK)

    async def promote(self) -> RolloutState:
        """As Client.promote."""
        return await self._ask(calls.PROMOTE)

    async def close(self) -> None:
        """Let the connections go."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _ask(self, call: Call[M]) -> M:
        attempts = self._side.attempts()
        while True:
            outcome = await self._send(call, attempts)
            wait = self._side.wait(call, outcome, attempts)
            if wait is None:
                return self._side.settle(call, outcome)
            await self._sleep(wait)

    async def _send(self, call: Call[M], attempts: Attempts) -> Outcome:
        body = bytearray()
        try:
            timeout = self._side.timeout(attempts)
            request = self._http.build_request(**call.parts(), timeout=timeout)
            response = await self._http.send(request, stream=True)
            async with aclosing(response):
                async for chunk in response.aiter_bytes():
                    self._side.take(body, chunk, attempts)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return error
        return as_reply(response, bytes(body))
