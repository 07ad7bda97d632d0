"""The service that a pipeline deploys to: reached with an admin's key, asked what it serves."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cluster.pipeline.config import PipelineConfig
from cluster.pipeline.release import find_release
from ensemble.bundle import Bundle, load_bundle
from search.errors import BundleError, ServingError

if TYPE_CHECKING:
    from serving.config import Rollout
    from serving.scoring.state import RolloutState

KEYLESS = ("unauthenticated:", "forbidden:")


class Admin(Protocol):
    """What is used of serving.client.Client."""

    def rollout(self) -> "RolloutState": ...
    def set_rollout(self, rollout: "Rollout") -> "RolloutState": ...
    def promote(self) -> "RolloutState": ...


@dataclass(frozen=True)
class Served:
    """The bundle that answers.

    Attributes:
        name: in the rollout.
        path: as the service sees it.
    """

    name: str
    digest: str
    path: Path


@contextmanager
def open_service(
    config: PipelineConfig, environment: Mapping[str, str] = os.environ
) -> Iterator[Admin | None]:
    """A client with the key that the environment holds; None where there is no service.

    Raises:
        ServingError: the service cannot be reached, or asks for another key.
    """
    if config.service is None:
        yield None
        return
    from serving.client import Client

    with Client(config.service, api_key=environment.get(config.api_key_env) or None) as client:
        try:
            client.rollout()  # better now than after the search
        except ServingError as error:
            if not any(code in str(error) for code in KEYLESS):
                raise
            raise ServingError(
                f"{error}; set {config.api_key_env} to a key with scope admin"
            ) from error
        yield client


def served_by(admin: Admin) -> Served:
    """The bundle that answers now.

    Raises:
        ServingError: none does, or the service cannot be reached.
    """
    state = admin.rollout()
    name = state.rollout.serving
    found = {one.name: one.digest for one in state.versions if one.role == "serving"}
    digest = found.get(name) or next(iter(found.values()), None)
    if digest is None:
        raise ServingError("the service names no bundle that serves; see GET /v1/model")
    return Served(name, digest, state.rollout.bundles[name].path)


def bundle_of(served: Served, config: PipelineConfig) -> Bundle:
    """The serving bundle's folder as it is seen from here: its own path, a release, or `against`.

    Raises:
        BundleError: it is at none of these.
    """
    releases = config.releases
    places = [served.path, releases and find_release(releases, served.digest), config.against]
    for place in places:
        if place is None:
            continue
        try:
            bundle = load_bundle(place)
        except BundleError:
            continue
        if bundle.manifest.digest == served.digest:
            return bundle
    raise BundleError(
        f"{served.path}: the bundle that serves ({served.digest[:12]}) cannot be read from here; "
        "name a copy of it as pipeline.against"
    )
