"""The Ray Serve application: import path `serving.app:build_app`.

Without `from __future__ import annotations`: Ray reads the annotation to validate a YAML's args.
"""

import asyncio
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Thread
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from search.errors import BundleError, ServingError
from serving.config import ExplainConfig, Rollout, ServingConfig, as_user_config
from serving.explain.explainer import Explainer
from serving.http.api import build_api
from serving.problems import ProblemError
from serving.scoring.board import RayBoard
from serving.scoring.panel import Verdict
from serving.scoring.question import Prepared, judge_all
from serving.scoring.service import Service

RETRY_AFTER_S = 1
logger = logging.getLogger("consilium.explain")


class Ingress(Service):
    """A service that brings its own HTTP interface: no hop between the two."""

    def __init__(
        self, config: ServingConfig, explainer: DeploymentHandle[Any] | None = None
    ) -> None:
        """Begin; Serve then calls `reconfigure` with the user_config, and it is ready."""
        super().__init__(
            config,
            board=RayBoard(),
            explain=None if explainer is None else partial(_explain, explainer),
            together=self._together if config.gpus else None,
            replica=serve.get_replica_context().replica_id.unique_id,
        )
        self._gpu = ThreadPoolExecutor(1, thread_name_prefix="gpu")
        if config.gpus:
            batched: Any = self._judge
            batched.set_max_batch_size(config.batch)
            batched.set_batch_wait_timeout_s(config.batch_wait_s)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Called by Ray Serve once the service is built (see ray.serve.ingress)."""
        return build_api(self)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:  # type: ignore[override]
        """Called by Ray Serve with the user_config: at the start, and whenever it changes.

        Raises:
            ServingError: at the start, as the first bundle cannot be served. Later that is said in
                /v1/model and in the log while the bundle before serves on: an error here would
                have Serve kill the replica.
        """
        if not self.open:
            await asyncio.to_thread(self.start, read_rollout(user_config))
            self.begin()
            return
        try:
            await super().reconfigure(read_rollout(user_config))
        except ServingError as error:
            self.versions.refuse("user_config", str(error))

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica that raises.

        Raises:
            ServingError: so many members are lost that nobody is left to answer.
        """
        if self.open and not self.panel.answers:
            raise ServingError("too few members are left to answer; the log tells which failed")

    async def _together(self, prepared: Prepared) -> Verdict:
        found = await self._judge(prepared)
        if isinstance(found, Exception):
            raise found
        return found

    @serve.batch
    async def _judge(self, batch: list[Prepared]) -> list[Verdict | Exception]:
        return await asyncio.get_running_loop().run_in_executor(self._gpu, judge_all, batch)


class Explaining:
    """The deployment that explains: torch, apart from those who answer."""

    def __init__(self, config: ServingConfig) -> None:
        """Ready at once; torch is loaded beside, for whoever asks first."""
        self._first = Future[Explainer]()
        begin = partial(_begin_explainer, self._first, config.max_pixels)
        Thread(target=begin, daemon=True).start()

    def __call__(self, *question: Any) -> dict[str, Any] | tuple[int, str, str]:
        """An explanation, or a problem's status, code and detail: Serve would wrap an error."""
        try:
            return self._first.result().explain(*question)
        except ProblemError as problem:
            return problem.status, problem.code, problem.detail
        except BundleError as error:
            logger.error("the bundle cannot be explained: %s", error)  # noqa: TRY400
            return 503, "not_ready", "the bundle cannot be loaded to explain it; try again later"
        except ServingError as error:
            return 422, "no_explanations", str(error)


def _begin_explainer(first: "Future[Explainer]", max_pixels: int) -> None:
    try:
        first.set_result(Explainer(max_pixels))
    except BaseException as error:
        first.set_exception(error)
        raise


def read_rollout(user_config: dict[str, Any] | None) -> Rollout:
    """A rollout out of Serve's user_config.

    Raises:
        ServingError: it is none.
    """
    try:
        return Rollout.model_validate(user_config or {})
    except (RuntimeError, OSError) as error:  # the home folder of nobody; links in a circle
        raise ServingError("user_config: a path cannot be resolved; name absolute ones") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in first["loc"]) or "user_config"
        raise ServingError(
            f"user_config: {where}: {first['msg']}; it takes bundles, serving, canary, shadow"
        ) from error


def build_app(args: ServingConfig) -> Application:
    """Replicas that each hold all members, and beside them a deployment that explains.

    Every name of a bundle in the YAML's user_config is loaded; changing it restarts nothing.
    """
    explainer = None if args.explain is None else _explaining(args, args.explain)
    ensemble = serve.deployment(
        name="ensemble",
        ray_actor_options={"num_cpus": args.cpus, "num_gpus": args.gpus},
        max_ongoing_requests=args.max_ongoing_requests,
        max_queued_requests=args.max_queued_requests,
        backpressure_config={"status_code": 429, "retry_after_s": RETRY_AFTER_S},
        autoscaling_config={
            "min_replicas": args.min_replicas,
            "max_replicas": args.max_replicas,
            "target_ongoing_requests": args.target_ongoing_requests,
            "upscale_delay_s": args.upscale_delay_s,
            "downscale_delay_s": args.downscale_delay_s,
        },
        health_check_period_s=5,
        graceful_shutdown_timeout_s=args.request_timeout_s,
        max_constructor_retry_count=3,
        user_config=None if args.rollout is None else as_user_config(args.rollout),
    )
    return ensemble(serve.ingress()(Ingress)).bind(args, explainer)


def _explaining(args: ServingConfig, config: ExplainConfig) -> Application:
    deployment = serve.deployment(
        name="explainer",
        ray_actor_options={"num_cpus": config.cpus},
        max_ongoing_requests=1,
        max_queued_requests=config.max_waiting,
        autoscaling_config={"min_replicas": 1, "max_replicas": config.max_replicas},
    )
    return deployment(Explaining).bind(args)


async def _explain(explainer: DeploymentHandle[Any], *question: Any) -> dict[str, Any]:
    try:
        found = await explainer.remote(*question)
    except BackPressureError as error:
        raise ProblemError(
            429,
            "overloaded",
            "too many explanations wait already; try again",
            headers={"Retry-After": "5"},
        ) from error
    if isinstance(found, dict):
        return found
    raise ProblemError(*found)
