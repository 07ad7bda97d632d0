"""Greedy forward selection with replacement on log loss, plain and in bags, within a budget.

The log loss of a pool depends only on the probability that each candidate gives the label, so
(candidates, images, classes) is reduced to (candidates, images) once, and a round is one pass over
that. Reference: Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ensemble.selection.results import Budget
from search.errors import StudyError
from search.training.metrics import NLL_FLOOR

Probs = NDArray[np.floating]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

TIE = 1e-12  # nats; losses nearer than this are equal, and the order decides
# Above twice the error of a mean log loss in float32: what lies within is scored in float64.
SCREEN = 3e-6
BLOCK = 1 << 17  # numbers scored at a time; half a megabyte, so that they stay in a core's cache
THREADS = 2
# Half of a few candidates is too few to choose from: a bag of only useless ones would weigh them.
SMALLEST_BAG = 10
NO_BUDGET = Budget(members=None)


@dataclass(frozen=True)
class Costs:
    """What each candidate costs, (n_candidates,) each; NaN fits no bound."""

    params_m: Floats
    latency_ms: Floats


def label_probs(oof_probs: Probs, labels: Ints) -> Probs:
    """The probability of each image's label, (n_candidates, n_images), in the dtype given."""
    return oof_probs[:, np.arange(len(labels)), labels]


def mean_loss(given: Probs) -> Floats:
    """Log loss of rows of label probabilities, clipped at 1e-7: (..., n_images) to (...)."""
    loss: Floats = -np.log(np.maximum(given, NLL_FLOOR, dtype=np.float64)).mean(axis=-1)
    return loss


def greedy(
    oof_probs: Probs,
    labels: Ints,
    *,
    rounds: int = 25,
    budget: Budget | None = None,
    costs: Costs | None = None,
) -> tuple[Floats, list[float]]:
    """Pick, again and again, the candidate that gives the pool the least log loss.

    Ties go to the earlier candidate. A candidate that would break the budget is not picked. The
    path counts up to its best round, the first of equals.

    Args:
        oof_probs: (n_candidates, n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        rounds: picks; a candidate may be picked again.
        budget: None is no bound.
        costs: needed where the budget bounds parameters or latency.

    Returns:
        (n_candidates,) weights summing to 1, 0 means left out; the pool's log loss after each of
        all `rounds` picks.

    Raises:
        StudyError: no candidate fits the budget.
    """
    return greedy_from(label_probs(oof_probs, labels), rounds=rounds, budget=budget, costs=costs)


def greedy_from(
    given: Probs, *, rounds: int = 25, budget: Budget | None = None, costs: Costs | None = None
) -> tuple[Floats, list[float]]:
    """`greedy`, of label probabilities (n_candidates, n_images)."""
    allowed = affordable(len(given), budget or NO_BUDGET, costs)
    scorer = _Scorer(given)
    counts, total = np.zeros((rounds, len(given))), np.zeros(given.shape[1])
    trajectory: list[float] = []
    for i in range(rounds):
        pick, loss = scorer.best(total, i + 1, np.flatnonzero(allowed))
        total += given[pick]
        counts[i:, pick] += 1
        trajectory.append(loss)
        allowed = room(counts[i] > 0, budget or NO_BUDGET, costs)
    best = _first_of_least(np.array(trajectory))
    return counts[best] / (best + 1), trajectory


def bagged_greedy(
    oof_probs: Probs,
    labels: Ints,
    *,
    rounds: int = 25,
    bags: int = 20,
    share: float = 0.5,
    seed: int = 0,
    budget: Budget | None = None,
    costs: Costs | None = None,
) -> Floats:
    """Mean of greedy selections from random bags of candidates; then the heaviest that fit.

    Bags take away most of the luck of being the best of many on few images. Candidates are drawn
    by their rank, so their order does not matter. An exact copy of a candidate, and one that alone
    breaks the budget, is not offered.

    Args:
        oof_probs: (n_candidates, n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        rounds: picks in a bag.
        bags: how many.
        share: of the candidates in a bag, (0, 1]; at least 10 candidates, or all.
        seed: of the bags.
        budget: on the members of the mean; None is no bound.
        costs: needed where the budget bounds parameters or latency.

    Returns:
        (n_candidates,) weights summing to 1; 0 means left out.

    Raises:
        StudyError: no candidate fits the budget.

    Source: Caruana et al., 2004, section 2.3.
    """
    given = label_probs(oof_probs, labels)
    return bagged_from(
        given, rounds=rounds, bags=bags, share=share, seed=seed, budget=budget, costs=costs
    )


def bagged_from(
    given: Probs,
    *,
    rounds: int = 25,
    bags: int = 20,
    share: float = 0.5,
    seed: int = 0,
    budget: Budget | None = None,
    costs: Costs | None = None,
) -> Floats:
    """`bagged_greedy`, of label probabilities (n_candidates, n_images)."""
    offered = _offered(given, affordable(len(given), budget or NO_BUDGET, costs))
    size = min(len(offered), max(SMALLEST_BAG, round(share * len(offered))))
    rng = np.random.default_rng(seed)
    drawn = [np.sort(rng.permutation(len(offered))[:size]) for _ in range(bags)]
    if size == len(offered):
        drawn = drawn[:1]  # every bag is the same
    weights = np.zeros(len(given))
    with ThreadPoolExecutor(THREADS) as threads:
        paths = threads.map(lambda bag: greedy_from(given[offered[bag]], rounds=rounds)[0], drawn)
        for bag, path in zip(drawn, paths, strict=True):
            weights[offered[bag]] += path / len(drawn)
    return _heaviest(weights, offered, budget or NO_BUDGET, costs)


def room(chosen: Bools, budget: Budget, costs: Costs | None) -> Bools:
    """Candidates that are chosen, or that still fit beside the chosen: (n_candidates,)."""
    free = np.full(len(chosen), budget.members is None or chosen.sum() < budget.members)
    for bound, cost in _bounds(budget, costs):
        free &= cost[chosen].sum() + cost <= bound
    return free | chosen


def fits(weights: Floats, budget: Budget, costs: Costs | None) -> bool:
    """Whether all members together keep the budget."""
    members = weights > 0
    if budget.members is not None and members.sum() > budget.members:
        return False
    return all(cost[members].sum() <= bound for bound, cost in _bounds(budget, costs))


def affordable(n_candidates: int, budget: Budget, costs: Costs | None) -> Bools:
    """Candidates that fit the budget alone.

    Raises:
        StudyError: there is none.
    """
    alone = room(np.zeros(n_candidates, np.bool_), budget, costs)
    if not alone.any():
        asked = ", ".join(f"{k} {v:g}" for k, v in budget.model_dump(exclude_none=True).items())
        raise StudyError(
            f"none of {n_candidates} candidates fits the budget ({asked}) alone; "
            "raise ensemble.budget, or search smaller backbones"
        )
    return alone


def _bounds(budget: Budget, costs: Costs | None) -> Iterator[tuple[float, Floats]]:
    for name in ("params_m", "latency_ms"):
        bound = getattr(budget, name)
        if bound is None:
            continue
        if costs is None:
            raise ValueError(f"a budget of {name} needs the candidates' costs")
        # A sum in floating point may lie a little above the same sum on paper.
        yield bound * (1 + 1e-9), getattr(costs, name)


def _offered(given: Probs, allowed: Bools) -> Ints:
    """Allowed candidates, least log loss first; of exact copies only the first."""
    rows = np.flatnonzero(allowed)
    seen: dict[bytes, int] = {}
    for row in rows.tolist():
        seen.setdefault(given[row].tobytes(), row)
    first = np.array(list(seen.values()))
    return first[np.argsort([mean_loss(given[row]) for row in first], kind="stable")]


def _heaviest(weights: Floats, order: Ints, budget: Budget, costs: Costs | None) -> Floats:
    """The heaviest members that fit together, renormalised; of equals the first in `order`."""
    kept = np.zeros(len(weights), np.bool_)
    for candidate in order[np.argsort(-weights[order], kind="stable")]:
        kept[candidate] = weights[candidate] > 0 and room(kept, budget, costs)[candidate]
    renormalised: Floats = np.where(kept, weights, 0) / weights[kept].sum()
    return renormalised


def _first_of_least(losses: Floats) -> int:
    return int(np.argmax(losses <= losses.min() + TIE))


class _Scorer:
    """Scores every candidate as the next pick.

    A mean of logs is the log of a product: four images are multiplied before each logarithm, in
    float32. Every factor is at least 1e-7, so a product of four, at least 1e-28, does not
    underflow, and its relative error is below 1e-6. Candidates within SCREEN of the least are
    scored again in float64 without the trick, so the pick is float64's.
    """

    def __init__(self, given: Probs) -> None:
        self.given = given
        n_candidates, n_images = given.shape
        width = -(-n_images // 4) * 4
        self.rows = np.zeros((n_candidates, width), np.float32)
        self.rows[:, :n_images] = given
        self.total = np.ones(width, np.float32)  # of the padding 1, whose log is 0
        high = max(1, min(n_candidates, BLOCK // width))
        self.sums = np.empty((high, width), np.float32)
        self.pairs = np.empty((high, width // 2), np.float32)
        self.fours = np.empty((high, width // 4), np.float32)

    def best(self, total: Floats, picks: int, allowed: Ints) -> tuple[int, float]:
        """The allowed candidate whose pick makes the log loss least, and that loss.

        `total` is the sum of the label probabilities picked before, (n_images,).
        """
        rough = self._rough(total, picks, allowed)
        close = allowed[rough <= rough.min() + SCREEN]
        exact = np.array([mean_loss((total + self.given[row]) / picks) for row in close])
        first = _first_of_least(exact)
        return int(close[first]), float(exact[first])

    def _rough(self, total: Floats, picks: int, allowed: Ints) -> Floats:
        n_images, floor = len(total), np.float32(picks * NLL_FLOOR)
        self.total[:n_images] = total
        clip = total.min() < floor  # otherwise no sum can lie below it
        logs = np.empty(len(allowed))
        for start in range(0, len(allowed), len(self.sums)):
            block = allowed[start : start + len(self.sums)]
            sums, pairs, fours = (b[: len(block)] for b in (self.sums, self.pairs, self.fours))
            np.take(self.rows, block, axis=0, out=sums, mode="clip")
            sums += self.total
            if clip:
                np.maximum(sums, floor, out=sums)
            np.multiply(sums[:, : pairs.shape[1]], sums[:, pairs.shape[1] :], out=pairs)
            np.multiply(pairs[:, : fours.shape[1]], pairs[:, fours.shape[1] :], out=fours)
            np.log(fours, out=fours)
            logs[start : start + len(block)] = fours.sum(axis=1)
        losses: Floats = np.log(picks) - logs / n_images
        return losses
