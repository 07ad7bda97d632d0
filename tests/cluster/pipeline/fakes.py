"""A service's admin side without a service, and time that passes when somebody sleeps."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cluster.pipeline.canary import Surroundings
from search.errors import ServingError
from serving.config import Rollout, Version
from serving.schemas import VersionState
from serving.scoring.compare import Counts
from serving.scoring.state import RolloutState

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
OLD = "0" * 64


class FakeAdmin:
    """Follows what it is told; gives the counts of a script, one a look while a canary stands."""

    def __init__(self, old: Path, counts: Sequence[Counts] = (), *, digest: str = OLD) -> None:
        self.wanted = Rollout(bundles={"old": Version(path=old)}, serving="old")
        self.digests = {"old": digest}
        self.counts = list(counts)
        self.refuses: str | None = None  # the reason of a replica that does not follow
        self.refuses_puts: str | None = None
        self.loses_answers = False
        self.puts: list[Rollout] = []
        self.on_look: Callable[[], None] = lambda: None

    def rollout(self) -> RolloutState:
        self.on_look()
        return self._state(count=True)

    def set_rollout(self, rollout: Rollout) -> RolloutState:
        if self.refuses_puts is not None:
            raise ServingError(f"http://fake: {self.refuses_puts}")
        self.puts.append(rollout)
        self.wanted = rollout
        for name, version in rollout.bundles.items():
            self.digests.setdefault(name, version.digest or "")
        return self._state()

    def promote(self) -> RolloutState:
        assert self.wanted.canary is not None
        self.wanted = Rollout(bundles=self.wanted.bundles, serving=self.wanted.canary.name)
        if self.loses_answers:
            raise ServingError("http://fake: cannot be reached")
        return self._state()

    def _state(self, *, count: bool = False) -> RolloutState:
        canary = self.wanted.canary
        found = Counts()
        if canary is not None and count and self.counts:
            found = self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]
        states = [self._version(name) for name in self.wanted.bundles]
        return RolloutState(
            rollout=self.wanted, versions=states, comparisons={"canary": found} if canary else {}
        )

    def _version(self, name: str) -> VersionState:
        canary = self.wanted.canary
        if name == self.wanted.serving:
            return VersionState(name=name, role="serving", digest=self.digests[name])
        if canary is None or canary.name != name:
            return VersionState(name=name, role="ready", digest=self.digests[name])
        if self.refuses is not None:
            return VersionState(name=name, role="refused", reason=self.refuses)
        return VersionState(name=name, role="canary", digest=self.digests[name])


class Clock:
    """A clock that somebody's sleep moves on; what was said is kept."""

    def __init__(self) -> None:
        self.time = BEGIN
        self.said: list[str] = []

    def around(self) -> Surroundings:
        return Surroundings(self.said.append, self.sleep, lambda: self.time)

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
