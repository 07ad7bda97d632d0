"""The bundles that one replica holds, by name: loaded beside the requests, swapped in one step.

A request takes `live` once and keeps it, so that a swap under way never shows it half of each.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from search.errors import BundleError, ConsiliumError, ServingError
from serving.config import Rollout, Version
from serving.schemas import Role, VersionState

logger = logging.getLogger("consilium.versions")
KEYS = 2**64  # first 8 bytes of a hash, as a number


class Loaded(Protocol):
    """What loading a version gives."""

    @property
    def digest(self) -> str: ...
    @property
    def n_lost(self) -> int: ...


L = TypeVar("L", bound=Loaded)


@dataclass(frozen=True)
class Live(Generic[L]):
    """One consistent view of what is served.

    Attributes:
        loaded: by name; every bundle of the rollout but those refused.
        refused: why, by name; never one that the rollout uses.
    """

    rollout: Rollout
    loaded: Mapping[str, L]
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def serving(self) -> L:
        """The one that answers."""
        return self.loaded[self.rollout.serving]

    @property
    def canary(self) -> L | None:
        """The one that answers a share of the requests."""
        canary = self.rollout.canary
        return None if canary is None else self.loaded[canary.name]

    @property
    def shadow(self) -> L | None:
        """The one that is asked and never returned."""
        name = self.rollout.shadow
        return None if name is None else self.loaded[name]

    def pick(self, key: bytes) -> tuple[str, L]:
        """Who answers for an image: the canary for its share, else the serving one.

        The same image always goes the same way, and a growing canary keeps the images it has.

        Args:
            key: the image's SHA-256; the first 8 bytes count.
        """
        canary = self.rollout.canary
        name = self.rollout.serving
        # Integers, not a fraction: 100 percent is then every key, with no rounding at the end.
        if canary and int.from_bytes(key[:8], "big") * 100 < canary.percent * KEYS:
            name = canary.name
        return name, self.loaded[name]


class Versions(Generic[L]):
    """Loads what rollouts name; what is live changes whole or not at all."""

    def __init__(self, load: Callable[[Version], L]) -> None:
        """Hold nothing yet.

        Args:
            load: opens, verifies and tries one version; raises where it is not fit to answer.
        """
        self._load = load
        self.changing = threading.RLock()  # held by who looks, then applies
        self._live: Live[L] | None = None
        self._tried: Rollout | None = None
        self._refused: dict[str, str] = {}  # by the newest apply, where that failed

    @property
    def live(self) -> Live[L]:
        """What is served now.

        Raises:
            ServingError: nothing was ever applied.
        """
        if self._live is None:
            raise ServingError("no bundle is loaded yet; ask again when the service is ready")
        return self._live

    def untried(self, rollout: Rollout) -> bool:
        """Whether a rollout set elsewhere is to be applied here.

        Not where it is live, nor where it was refused just now: it would be again, and each try
        loads a bundle.
        """
        with self.changing:
            return rollout != self._tried and (self._live is None or rollout != self._live.rollout)

    def apply(self, rollout: Rollout) -> None:
        """Load what is new of a rollout, then serve by it. Blocking; one at a time.

        A bundle that is named and not used may fail: it is refused, and the rest goes on.

        Raises:
            BundleError, ServingError: a bundle that is used was refused; nothing has changed.
        """
        with self.changing:
            self._tried = rollout
            self._live = self._loaded(rollout)
            self._refused = {}

    def refuse(self, name: str, reason: str) -> None:
        """Note what was asked for and is not even a rollout."""
        self._refused = {name: reason}

    def states(self) -> list[VersionState]:
        """Every bundle that is loaded, then every one refused; the same name may be both."""
        live, failed = self._live, self._refused  # a load under way holds the lock for seconds
        states = [] if live is None else list(_states(live))
        refused = {**({} if live is None else live.refused), **failed}
        return states + [
            VersionState(name=name, role="refused", reason=reason)
            for name, reason in refused.items()
        ]

    def _loaded(self, rollout: Rollout) -> Live[L]:
        used = _used(rollout)
        rest = [name for name in rollout.bundles if name not in used]
        loaded: dict[str, L] = {}
        refused: dict[str, str] = {}
        for name in [*used, *rest]:  # those used first: where one fails, nothing else is worth it
            try:
                kept = self._kept(name, rollout)
                loaded[name] = self._checked(rollout.bundles[name]) if kept is None else kept
            except (BundleError, ServingError) as error:
                logger.warning("bundle %s is refused: %s", name, error)
                refused[name] = str(error)
                if name in used:
                    self._refused = refused
                    raise
        return Live(rollout, loaded, refused)

    def _kept(self, name: str, rollout: Rollout) -> L | None:
        """What is loaded already under this name, where path and digest are as they were."""
        if self._live is None or self._live.rollout.bundles.get(name) != rollout.bundles[name]:
            return None
        kept = self._live.loaded.get(name)
        return None if kept is None or kept.n_lost else kept  # what lost members is loaded again

    def _checked(self, version: Version) -> L:
        try:
            return self._load(version)
        except (BundleError, ServingError):
            raise
        except ConsiliumError as error:
            raise BundleError(str(error)) from error
        except Exception as error:  # a library's own, from a file that is not what it should be
            logger.exception("loading %s failed", version.path)
            raise BundleError(
                f"{version.path}: cannot be loaded ({type(error).__name__}); the log tells more"
            ) from error


def _used(rollout: Rollout) -> list[str]:
    """Names with a role, each once, the serving one first."""
    canary = None if rollout.canary is None else rollout.canary.name
    names = [rollout.serving, canary, rollout.shadow]
    return list(dict.fromkeys(name for name in names if name is not None))


def _states(live: Live[L]) -> Iterator[VersionState]:
    for name, one in live.loaded.items():
        yield VersionState(name=name, role=_role(live.rollout, name), digest=one.digest)


def _role(rollout: Rollout, name: str) -> Role:
    if name == rollout.serving:
        return "serving"
    if rollout.canary is not None and name == rollout.canary.name:
        return "canary"
    return "shadow" if name == rollout.shadow else "ready"
