"""What an admin may change while the service answers: which bundles are served.

GET  /v1/admin/rollout   what is wanted, what is loaded, how the others compare
PUT  /v1/admin/rollout   load, check, swap; then every replica follows
POST /v1/admin/promote   the canary becomes the serving bundle
POST /v1/admin/rollback  back to the rollout before

Nothing here asks who is there: the front lets nobody without the scope admin to any path below
/v1/admin. Codes: bundle_not_allowed 403, no_canary and no_rollback 409, too_large 413,
bundle_refused and invalid_parameter 422, not_ready and rollout_not_kept 503.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError

from search.errors import BundleError, ServingError
from serving.config import Rollout, ServingConfig, Version
from serving.http.inlined import inlined
from serving.http.problems import problem_responses
from serving.problems import ProblemError
from serving.scoring.board import Desired
from serving.scoring.compare import Comparison
from serving.scoring.state import RolloutState
from serving.scoring.versions import Versions

LARGEST_BODY = 64 * 1024  # bytes


class Administered(Protocol):
    """What is used here of a service."""

    @property
    def config(self) -> ServingConfig: ...
    @property
    def versions(self) -> Versions[Any]: ...
    @property
    def desired(self) -> Desired: ...
    @property
    def comparison(self) -> Comparison: ...


EXAMPLE = {
    "bundles": {"new": {"path": "/srv/bundles/lesions-2"}, "old": {"path": "/srv/bundles/lesions"}},
    "serving": "old",
    "canary": {"name": "new", "percent": 5},
}
JSON_BODY = {"schema": inlined(Rollout.model_json_schema()), "example": EXAMPLE}
BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": JSON_BODY}}
}

router = APIRouter(prefix="/v1/admin", tags=["admin"])


async def the_service(request: Request) -> Administered:
    """The service behind the app."""
    service: Administered = request.app.state.service
    return service


async def the_rollout(request: Request) -> Rollout:
    """The body, read up to a limit and parsed; parsing looks paths up, so not on the event loop.

    Raises:
        ProblemError: 413 or 422.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise ProblemError(413, "too_large", f"a rollout has at most {LARGEST_BODY} bytes")
    return await asyncio.to_thread(_parse, body)


Served = Annotated[Administered, Depends(the_service)]
Wanted = Annotated[Rollout, Depends(the_rollout)]


@router.get("/rollout", responses=problem_responses(500, 503))
async def rollout(service: Served) -> RolloutState:
    """What is wanted, what is loaded, and how the others compare."""
    return await _done(_answer, service)


@router.put("/rollout", openapi_extra=BODY, responses=problem_responses(403, 413, 422, 500, 503))
async def set_rollout(service: Served, rollout: Wanted) -> RolloutState:
    """Load and check what is new, swap, and have every replica follow; or change nothing."""
    return await _done(_set, service, rollout)


@router.post("/promote", responses=problem_responses(409, 422, 500, 503))
async def promote(service: Served) -> RolloutState:
    """The canary becomes the serving bundle; the one before stays loaded."""
    return await _done(_promote, service)


@router.post("/rollback", responses=problem_responses(409, 422, 500, 503))
async def rollback(service: Served) -> RolloutState:
    """Back to the rollout before; once more undoes that."""
    return await _done(_rollback, service)


async def _done(work: Callable[..., RolloutState], *args: Any) -> RolloutState:
    """The answer of blocking work."""
    try:
        return await asyncio.to_thread(work, *args)
    except ServingError as error:
        raise ProblemError(503, "not_ready", str(error)) from error


def _parse(body: bytes) -> Rollout:
    try:
        return Rollout.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise ProblemError(422, "invalid_parameter", f"{where[:200]}: {first['msg']}") from error
    except (RuntimeError, OSError) as error:  # the home folder of nobody; links in a circle
        raise ProblemError(
            422, "invalid_parameter", "bundles: a path cannot be resolved; name absolute ones"
        ) from error


def _set(service: Administered, rollout: Rollout) -> RolloutState:
    known = [service.desired.configuration, service.desired.wanted()]
    for name, version in rollout.bundles.items():
        if not _allowed(name, version, known, service.config.bundle_root):
            raise _not_allowed(name, service.config.bundle_root)
    return _change(service, rollout)


def _promote(service: Administered) -> RolloutState:
    now = service.desired.wanted()
    if now.canary is None:
        raise ProblemError(409, "no_canary", "there is no canary; PUT a rollout that names one")
    name = now.canary.name
    shadow = None if now.shadow == name else now.shadow
    return _change(service, Rollout(bundles=now.bundles, serving=name, shadow=shadow))


def _rollback(service: Administered) -> RolloutState:
    previous = service.desired.previous()
    if previous is None:
        raise ProblemError(
            409, "no_rollback", "there is no rollout before this one; PUT the one you want"
        )
    return _change(service, previous)


def _change(service: Administered, rollout: Rollout) -> RolloutState:
    """Swap here, then tell the others; what they cannot be told does not stay here either."""
    with service.versions.changing:  # the replica's own follower must not see half of it
        before = service.versions.live.rollout
        try:
            service.versions.apply(rollout)
        except (BundleError, ServingError) as error:
            raise ProblemError(422, "bundle_refused", str(error)) from error
        try:
            service.desired.override(rollout)
        except ServingError as error:
            with contextlib.suppress(BundleError, ServingError):
                service.versions.apply(before)
            raise ProblemError(503, "rollout_not_kept", f"nothing has changed: {error}") from error
        if rollout != before:
            service.comparison.reset()
    return _answer(service)


def _allowed(name: str, version: Version, known: list[Rollout], root: Path | None) -> bool:
    """Whether this bundle stands in a rollout already, or lies below the root set for new ones."""
    for old in known:
        there = old.bundles.get(name)
        if (
            there is not None
            and there.path == version.path
            and there.digest
            in (
                None,
                version.digest,  # a digest may be asked for; one asked for may not be taken out
            )
        ):
            return True
    if root is None:
        return False
    path, root = version.path.resolve(), root.resolve()  # follows links, folds ".."
    return path != root and path.is_relative_to(root)


def _not_allowed(name: str, root: Path | None) -> ProblemError:
    rule = (
        "only bundles of the present rollout may be named; set bundle_root to allow others"
        if root is None
        else "a new bundle lies below bundle_root, links followed"
    )
    return ProblemError(403, "bundle_not_allowed", f"{name[:100]!r}: {rule}")


def _answer(service: Administered) -> RolloutState:
    return RolloutState(
        rollout=service.desired.wanted(),
        previous=service.desired.previous(),
        versions=service.versions.states(),
        comparisons=service.comparison.counts(),
        reason=service.desired.reason,
    )
