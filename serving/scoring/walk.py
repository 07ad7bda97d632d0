"""A cascade at work: cheap members answer alone where the whole ensemble would decide the same."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.bundle import Bundle
from ensemble.cascade import stops
from ensemble.decision.points import Decision, OperatingPoint
from ensemble.manifest import Stage
from ensemble.runtime import survivors_of
from ensemble.survivors import pool_subset

Floats = NDArray[np.float64]
MemberProbs = dict[str, NDArray[np.float32]]
Ask = Callable[[str], object]


def has_exits(bundle: Bundle, point: OperatingPoint | None) -> bool:
    """Whether the bundle's cascade may end early at this point."""
    return point is not None and bool(_stages(bundle, point))


def walk(
    bundle: Bundle, point: OperatingPoint, said: MemberProbs, ask: Ask
) -> tuple[Floats, Decision] | None:
    """Ask members in the cascade's order until what they say is enough.

    Args:
        said: filled by `ask`, (n_classes,) by member's name.
        ask: puts a member's probabilities into `said`.

    Returns:
        The calibrated probabilities of those asked so far, (n_classes,), and the decision; None
        where the whole ensemble has to be asked.
    """
    for stage in _stages(bundle, point):
        for name in stage.members:
            if name not in said:
                ask(name)
        probs = _calibrated(bundle, stage.members, said)
        positive = bundle.positive_index
        if probs is None or positive is None:
            return None
        decision = stops(stage, point.name, float(probs[positive]))
        if decision is not None:
            return probs, decision
    return None


def _stages(bundle: Bundle, point: OperatingPoint) -> list[Stage]:
    cascade = bundle.manifest.cascade
    stages = [] if cascade is None else cascade.stages
    return [stage for stage in stages if any(e.point == point.name for e in stage.exits)]


def _calibrated(bundle: Bundle, names: Sequence[str], said: MemberProbs) -> Floats | None:
    """Pooled and calibrated as the bundle holds it for just these members, (n_classes,)."""
    fitted = survivors_of(bundle, names)
    if fitted is None:
        return None
    weights = {member.name: member.weight for member in bundle.manifest.members}
    member_probs = np.stack([said[name] for name in names])[:, None]
    pooled = pool_subset(member_probs, np.array([weights[n] for n in names]), range(len(names)))
    probs: Floats = fitted.calibrator.apply(pooled)[0]
    return probs
