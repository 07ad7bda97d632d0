"""An order of members in which the later ones are asked only where they could change the decision.

Bounds of early exits are proposed on out-of-fold images, and kept only as far as held-back cases
show that stopping there decides as the whole ensemble does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.config import CascadeConfig
from ensemble.decision.choose import one_per_group
from ensemble.decision.fit import Decided
from ensemble.decision.intervals import clopper_pearson
from ensemble.decision.points import Decision, OperatingPoint
from ensemble.manifest import Agreement, Cascade, Exit, Member, Stage, Survivors
from ensemble.survivors import pool_subset

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CAREFUL = (0.25, 0.5)  # of the images that may leave without any disagreement, the surest so many
BOLD = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)  # shares of the permitted disagreement
LEAST_SAVING = 0.05  # of the latency; below it an exit is not worth its explanation
NEVER_NEGATIVE, NEVER_POSITIVE = 0.0, 2.0  # bounds that no probability passes
NEGATIVE, REFER, POSITIVE, ON = 0, 1, 2, -1  # outcomes; ON: the next member is asked

Bounds = list[tuple[float, float]]  # negative below, positive from; by stage


@dataclass(frozen=True)
class Panel:
    """The whole ensemble: its members, and how all or some of them decide.

    Attributes:
        names: of the members.
        weights: (n_members,), above 0, summing to 1.
        latencies: of each member, (n_members,), in any one unit.
        positive: class index that decisions are about.
        decided: of all members.
        survivors: of at least the subsets that `prefixes` gives.
    """

    names: Sequence[str]
    weights: NDArray[np.floating]
    latencies: NDArray[np.floating]
    positive: int | None
    decided: Decided
    survivors: Sequence[Survivors]


@dataclass(frozen=True)
class _Seen:
    """What is seen of some images on the way: their probability after each stage, and at the end.

    Attributes:
        staged: of the positive class, calibrated, (n_stages, n_images).
        final: the whole ensemble's, (n_images,).
    """

    staged: Floats
    final: Floats


def member_order(weights: NDArray[np.floating], latencies: NDArray[np.floating]) -> list[int]:
    """Members by latency per weight, cheapest first; of equals the one that stands first."""
    price = np.asarray(latencies, np.float64) / np.asarray(weights, np.float64)
    return [int(i) for i in np.argsort(price, kind="stable")]


def first_asked(members: Sequence[Member]) -> Member:
    """The member that a cascade asks first: whatever every image needs is measured by it."""
    weights = np.array([member.weight for member in members])
    return members[member_order(weights, np.array([m.latency_ms for m in members]))[0]]


def prefixes(
    weights: NDArray[np.floating], latencies: NDArray[np.floating]
) -> list[tuple[int, ...]]:
    """The members asked so far after each stage but the last; their decisions must be fitted."""
    order = member_order(weights, latencies)
    return [tuple(order[:k]) for k in range(1, len(order))]


def build_cascade(
    panel: Panel,
    member_probs: NDArray[np.floating],
    proposal_probs: NDArray[np.floating],
    groups: Ints,
    *,
    labels: Ints,
    config: CascadeConfig,
    certifies: Bools | None = None,
    seed: int = 0,
) -> Cascade | None:
    """Find exit bounds for each operating point, and certify them.

    Bounds from careful to bold are proposed on out-of-fold images alone. On held-back cases, one
    image of each group, they are then tested in that fixed order until the upper Clopper-Pearson
    bound of the share decided otherwise than by the whole ensemble is above the permitted one; the
    last that passed is kept. Each point's promise stands by itself, not all of them at once. Where
    a point is certified, the cascade's own misses or false alarms must be as few as that takes: a
    few disagreements of all images can be many of the positives.

    Args:
        member_probs: of held-back cases, (n_members, n_images, n_classes).
        proposal_probs: of out-of-fold images, (n_members, n_others, n_classes).
        labels: class indices of the held-back cases, (n_images,).
        groups: linked held-back cases share one, (n_images,).
        certifies: held-back cases to test on, (n_images,); all if None.
        seed: draws the one image of each group.

    Returns:
        None where there is nothing to gain: one member, no positive class, or no point at which at
        least 5% of the latency is saved. A point that is not among the agreements has no exits.

    Raises:
        ValueError: the decision of a prefix is not among the survivors.

    Source: the fixed sequence is that of Angelopoulos et al., "Learn then Test", 2021; the one of
    exits that agree with the full model is Schuster et al., "Consistent accelerated inference via
    confident adaptive transformers", EMNLP 2021.
    """
    if len(panel.names) < 2 or panel.positive is None or not panel.decided.operating_points:
        return None
    tested = _tested(groups, certifies, seed)
    proposals, cases = _see(panel, proposal_probs), _see(panel, member_probs[:, tested])
    is_positive = labels[tested] == panel.positive
    costs = _costs(panel)
    kept: dict[str, tuple[Bounds, list[float]]] = {}
    agreements = []
    for point in panel.decided.operating_points:
        bounds = _certified(point, proposals, cases, is_positive, config)
        if bounds is None:
            continue
        agreement, leaving = _measure(point, bounds, cases, costs, config)
        if agreement.cost <= 1 - LEAST_SAVING:
            kept[point.name] = bounds, leaving
            agreements.append(agreement)
    if not kept:
        return None
    order = member_order(panel.weights, panel.latencies)
    stages = [
        Stage(
            members=[panel.names[i] for i in order[: k + 1]],
            exits=[_exit(name, bounds[k]) for name, (bounds, _) in kept.items()],
            leaving={name: leaving[k] for name, (_, leaving) in kept.items()},
        )
        for k in range(len(order) - 1)
    ]
    return Cascade(stages=stages, agreements=agreements, confidence=config.confidence)


def stops(stage: Stage, point: str, probability: float) -> Decision | None:
    """The decision at an operating point after a stage; None: ask the next member.

    Args:
        probability: of the positive class, calibrated for the stage's members.
    """
    for bounds in stage.exits:
        if bounds.point == point:
            if probability < bounds.negative_below:
                return "negative"
            return "positive" if probability >= bounds.positive_from else None
    return None


def _tested(groups: Ints, certifies: Bools | None, seed: int) -> Ints:
    """Row numbers of one case a group; with an equal seed those that chose the points."""
    rows = np.arange(len(groups)) if certifies is None else np.flatnonzero(certifies)
    kept: Ints = rows[one_per_group(groups[rows], seed=seed)]
    return kept


def _see(panel: Panel, member_probs: NDArray[np.floating]) -> _Seen:
    fitted = {frozenset(s.members): s.calibrator for s in panel.survivors}
    probs, weights = np.asarray(member_probs, np.float64), np.asarray(panel.weights, np.float64)
    staged = []
    for prefix in prefixes(panel.weights, panel.latencies):
        names = frozenset(panel.names[i] for i in prefix)
        if names not in fitted:
            raise ValueError(f"survivors must hold {', '.join(sorted(names))}")
        staged.append(fitted[names].apply(pool_subset(probs, weights, prefix))[:, panel.positive])
    everyone = pool_subset(probs, weights, range(len(weights)))
    final = panel.decided.calibrator.apply(everyone)[:, panel.positive]
    return _Seen(np.stack(staged), final)


def _costs(panel: Panel) -> Floats:
    """Latency up to the end of each stage and of the whole, as a share of the whole."""
    order = member_order(panel.weights, panel.latencies)
    spent = np.cumsum(np.asarray(panel.latencies, np.float64)[order])
    shares: Floats = spent / spent[-1]
    return shares


def _certified(
    point: OperatingPoint,
    proposals: _Seen,
    cases: _Seen,
    is_positive: Bools,
    config: CascadeConfig,
) -> Bounds | None:
    """The boldest proposed bounds that pass, before the first that do not."""
    passed, whole = None, _outcomes(point, cases.final)
    for bounds in _proposed(point, proposals, config.disagreement):
        decided = _walk(bounds, cases, whole)[0]
        differ = int((decided != whole).sum())
        _, at_most = clopper_pearson(differ, len(whole), confidence=config.confidence)
        if at_most > config.disagreement or not _keeps(point, decided, is_positive):
            break
        passed = bounds
    return passed


def _keeps(point: OperatingPoint, decided: Ints, is_positive: Bools) -> bool:
    """Whether these decisions still prove what the point promises."""
    if not point.certified or point.aim is None:
        return True
    right = decided[is_positive] != NEGATIVE
    if point.kind == "specificity":
        right = decided[~is_positive] != POSITIVE
    hits, n = int(right.sum()), len(right)
    if point.kind == "false_negative_rate":
        return (n - hits + 1) / (n + 1) <= point.aim
    return clopper_pearson(hits, n, confidence=point.confidence)[0] >= point.aim


def _proposed(point: OperatingPoint, proposals: _Seen, disagreement: float) -> Iterator[Bounds]:
    """Bounds from careful to bold; at the n-th bold one a known share of proposals disagrees."""
    whole = _outcomes(point, proposals.final)
    sides = 2 * len(proposals.staged)
    safe = [_bounds(point, p, whole, allowed=0) for p in proposals.staged]
    for share in CAREFUL:
        yield [_narrowed(b, p, share) for b, p in zip(safe, proposals.staged, strict=True)]
    for share in BOLD:
        allowed = int(share * disagreement * len(whole) / sides)
        yield [_bounds(point, p, whole, allowed=allowed) for p in proposals.staged]


def _bounds(
    point: OperatingPoint, score: Floats, whole: Ints, *, allowed: int
) -> tuple[float, float]:
    """The widest exits of one stage that `allowed` proposals on either side disagree with.

    Neither crosses the point's own thresholds: an exit is for those who are surer than needed.
    """
    lowest = point.threshold if point.refer_from is None else point.refer_from
    amiss = np.sort(score[whole != NEGATIVE])
    below = amiss[allowed] if allowed < len(amiss) else lowest
    amiss = np.sort(score[whole != POSITIVE])[::-1]
    # The bound itself leaves as positive: it has to lie above the score that must not.
    above = np.nextafter(amiss[allowed], 2) if allowed < len(amiss) else point.threshold
    return min(float(below), lowest), max(float(above), point.threshold)


def _narrowed(bounds: tuple[float, float], score: Floats, share: float) -> tuple[float, float]:
    """Bounds for the surest share of those who leave on either side."""
    low, high = score[score < bounds[0]], score[score >= bounds[1]]
    return (
        float(np.quantile(low, share)) if len(low) else NEVER_NEGATIVE,
        float(np.quantile(high, 1 - share)) if len(high) else NEVER_POSITIVE,
    )


def _outcomes(point: OperatingPoint, score: Floats) -> Ints:
    """`point.decide` of each score."""
    lowest = point.threshold if point.refer_from is None else point.refer_from
    return np.where(score >= point.threshold, POSITIVE, np.where(score >= lowest, REFER, NEGATIVE))


def _walk(bounds: Bounds, seen: _Seen, whole: Ints) -> tuple[Ints, Ints]:
    """Each image's outcome with exits, and the stage it leaves at; the last one is the whole."""
    outcome, stage = np.full(len(whole), ON), np.full(len(whole), len(bounds))
    for k, (below, above) in enumerate(bounds):
        score, on = seen.staged[k], outcome == ON
        outcome[on & (score < below)] = NEGATIVE
        outcome[on & (score >= above)] = POSITIVE
        stage[on & (outcome != ON)] = k
    return np.where(outcome == ON, whole, outcome), stage


def _measure(
    point: OperatingPoint, bounds: Bounds, cases: _Seen, costs: Floats, config: CascadeConfig
) -> tuple[Agreement, list[float]]:
    """The agreement on held-back cases, and the share of them that leaves at each stage."""
    whole = _outcomes(point, cases.final)
    outcome, stage = _walk(bounds, cases, whole)
    differ, n = int((outcome != whole).sum()), len(whole)
    agreement = Agreement(
        point=point.name,
        disagreements=differ,
        n=n,
        at_most=clopper_pearson(differ, n, confidence=config.confidence)[1],
        cost=float(costs[stage].mean()),
    )
    return agreement, [float((stage == k).mean()) for k in range(len(bounds))]


def _exit(point: str, bounds: tuple[float, float]) -> Exit:
    return Exit(point=point, negative_below=bounds[0], positive_from=bounds[1])
