"""A release answers a share of the images, and is promoted or taken back by rule.

The service compares: each image that the canary answers is put to the serving bundle, too. What
it says is of the replica that answers, so that the images are those of one replica.

Whoever comes back after being killed finds the canary standing and goes on watching it.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from cluster.pipeline.config import CanaryConfig
from cluster.pipeline.service import Admin
from ensemble.bundle import Bundle
from ensemble.decision.intervals import clopper_pearson
from search.errors import ServingError

if TYPE_CHECKING:
    from serving.config import Rollout
    from serving.scoring.compare import Counts
    from serving.scoring.state import RolloutState

EVERY_S = 2.0  # between two looks
TWO_SIDED = 0.90  # whose ends are one-sided bounds with 95% confidence
Say = Callable[[str], object]


@dataclass(frozen=True)
class Verdict:
    """What a canary came to.

    Attributes:
        final: another try with the same inputs would be a second chance, not a second look.
    """

    promoted: bool
    why: str
    figures: dict[str, Any]
    final: bool = True


@dataclass(frozen=True)
class Surroundings:
    """What is around a canary: time, and who hears of it."""

    say: Say = lambda _: None
    sleep: Callable[[float], object] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


def try_release(
    admin: Admin,
    release: Bundle,
    rules: CanaryConfig,
    *,
    begun: datetime,
    around: Surroundings | None = None,
) -> Verdict:
    """Put a release up as canary, or find it standing; watch; promote or take it back.

    Args:
        begun: when a canary that stands already was put up.

    Raises:
        ServingError: another canary stands, or the service cannot be reached; what stands then
            stays for the next try.
    """
    around = around or Surroundings()
    name, state = release.folder.name, admin.rollout()
    if state.rollout.serving == name:
        return Verdict(True, "it serves already", {})
    if _stands(state.rollout, name, rules):
        around.say(f"canary {name} stands already; watching on")
    else:
        _refuse_foreign(state.rollout, name)
        begun = around.now()
        try:
            state = admin.set_rollout(_with_canary(state.rollout, release, rules))
        except ServingError as error:
            if "bundle_refused:" not in str(error):
                raise
            return Verdict(False, f"the service refused it: {error}", {}, final=False)
        around.say(f"canary {name} answers {rules.percent:g}% of the images")
    return _watch(admin, state.rollout, rules, begun + timedelta(minutes=rules.minutes), around)


def judge(
    counts: "Counts", rules: CanaryConfig
) -> tuple[Literal["promote", "refuse", "wait"], str]:
    """What comparisons come to so far, and why.

    Refused early where more disagree than the rule lets pass even at the lower bound; promoted
    only where enough were compared and the upper bound keeps to the rule.
    """
    n, k = counts.agreements + counts.disagreements, counts.disagreements
    if counts.failed > rules.failures:
        return "refuse", f"{counts.failed} comparisons failed, {rules.failures} may"
    low, high = clopper_pearson(k, n, confidence=TWO_SIDED) if n else (0.0, 1.0)
    told = f"{k} of {n} compared images decided otherwise"
    if low > rules.disagreement or (n >= rules.images and high > rules.disagreement):
        return "refuse", (
            f"{told}, up to {high:.1%} with 95% confidence; {rules.disagreement:.1%} may be"
        )
    if n >= rules.images:
        return "promote", f"{told}, at most {high:.1%} with 95% confidence"
    return "wait", told


def withdraw(admin: Admin, rollout: "Rollout", name: str) -> None:
    """The rollout without this canary and its bundle; the same twice is the same as once."""
    left = {key: version for key, version in rollout.bundles.items() if key != name}
    admin.set_rollout(rollout.model_copy(update={"bundles": left, "canary": None}))


def withdraw_earlier(admin: Admin, release: str, say: Say) -> None:
    """Take back the canary that an earlier bundle of this name left standing."""
    rollout = admin.rollout().rollout
    if rollout.canary is None or rollout.canary.name == release:
        return
    if _is_own(rollout.canary.name, release):
        withdraw(admin, rollout, rollout.canary.name)
        say(f"canary {rollout.canary.name} of an earlier bundle is taken back")


def _watch(
    admin: Admin, wanted: "Rollout", rules: CanaryConfig, deadline: datetime, around: Surroundings
) -> Verdict:
    name, told = wanted.canary.name if wanted.canary else "", ""
    while True:
        state = admin.rollout()
        if state.rollout != wanted and state.reason is None:  # else the replica could not ask
            return _changed(state, name)
        if (reason := _refused(state, name)) is not None:
            withdraw(admin, wanted, name)
            return Verdict(False, f"a replica refused it: {reason}", {}, final=False)
        counts = _counts(state, name)
        verdict, why = judge(counts, rules)
        if why != told:
            around.say(f"canary: {why}")
            told = why
        if verdict == "promote":
            _promote(admin, name)
            return Verdict(True, f"promoted: {why}", _figures(counts))
        if verdict == "refuse":
            withdraw(admin, wanted, name)
            return Verdict(False, f"taken back: {why}", _figures(counts))
        if around.now() >= deadline:
            withdraw(admin, wanted, name)
            why = f"taken back: {why} in {rules.minutes:g} minutes, {rules.images} are asked for"
            return Verdict(False, why, _figures(counts), final=False)
        around.sleep(EVERY_S)


def _promote(admin: Admin, name: str) -> None:
    """Promote, and where the answer was lost, see whether it happened."""
    try:
        state = admin.promote()
    except ServingError:
        state = admin.rollout()
        if state.rollout.serving != name:
            raise
    if state.rollout.serving != name:
        raise ServingError(f"{state.rollout.serving} was promoted in the place of {name}")


def _stands(rollout: "Rollout", name: str, rules: CanaryConfig) -> bool:
    canary = rollout.canary
    return canary is not None and canary.name == name and canary.percent == rules.percent


def _refuse_foreign(rollout: "Rollout", name: str) -> None:
    if rollout.canary is not None and not _is_own(rollout.canary.name, name):
        raise ServingError(
            f"another canary stands, {rollout.canary.name!r}; promote it or take it back first"
        )


def _with_canary(rollout: "Rollout", release: Bundle, rules: CanaryConfig) -> "Rollout":
    """The rollout with the release as canary; earlier releases without a role are let go."""
    from serving.config import Canary, Rollout, Version

    name = release.folder.name
    kept = {
        key: version
        for key, version in rollout.bundles.items()
        if key in (rollout.serving, rollout.shadow) or not _is_own(key, name)
    }
    version = Version(path=release.folder, digest=release.manifest.digest)
    return Rollout(
        bundles={**kept, name: version},
        serving=rollout.serving,
        canary=Canary(name=name, percent=rules.percent),
        shadow=None if rollout.shadow == name else rollout.shadow,
    )


def _is_own(key: str, name: str) -> bool:
    """Whether it is called as releases of the same bundle's name are."""
    head = name.rpartition("-")[0]
    return re.fullmatch(re.escape(head) + r"-[0-9a-f]{12}", key) is not None


def _refused(state: "RolloutState", name: str) -> str | None:
    found = (one for one in state.versions if one.name == name and one.role == "refused")
    return next((one.reason or "no reason given" for one in found), None)


def _counts(state: "RolloutState", name: str) -> "Counts":
    """Nothing where the replica that answers does not follow yet: its counts are of another."""
    from serving.scoring.compare import Counts

    follows = any(one.name == name and one.role == "canary" for one in state.versions)
    return state.comparisons.get("canary", Counts()) if follows else Counts()


def _changed(state: "RolloutState", name: str) -> Verdict:
    if state.rollout.serving == name:
        return Verdict(True, "somebody promoted it meanwhile", {})
    why = "somebody changed the rollout meanwhile; it is left as it is now"
    return Verdict(False, why, {}, final=False)


def _figures(counts: "Counts") -> dict[str, Any]:
    return {
        "agreements": counts.agreements,
        "disagreements": counts.disagreements,
        "dropped": counts.dropped,
        "failed": counts.failed,
        "largest_difference": counts.largest,
        "mean_difference": counts.mean,
    }
