"""The ways of choosing members, from the simplest on: one, some alike, greedy, all."""

import numpy as np

from ensemble.selection.greedy import (
    TIE,
    Costs,
    Floats,
    Ints,
    Probs,
    affordable,
    bagged_from,
    mean_loss,
    room,
)
from ensemble.selection.results import Budget, Choice
from ensemble.selection.sharpness import tempered_label_probs


def choose(
    choice: Choice,
    oof_probs: Probs,
    labels: Ints,
    *,
    costs: Costs | None,
    budget: Budget,
    seed: int = 0,
) -> Floats:
    """Weigh candidates in one of the four ways, on the images given.

    Candidates are judged after a temperature of their own: else a useless one, unsure of all,
    would gain a weight by softening an over-sure one, which the calibrator does for nothing.
    All but "all" keep the budget. Ties go to the earlier candidate and to fewer members.

    Args:
        choice: of `CHOICES`.
        oof_probs: (n_candidates, n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        costs: of each candidate; needed where the budget bounds parameters or latency.
        budget: on all members together.
        seed: of the greedy choice's bags.

    Returns:
        (n_candidates,) weights summing to 1; 0 means left out.

    Raises:
        StudyError: no candidate fits the budget.
    """
    alone = np.stack([tempered_label_probs(probs, labels) for probs in oof_probs])
    return choose_from(choice, alone, costs=costs, budget=budget, seed=seed)


def choose_from(
    choice: Choice,
    alone: Probs,
    *,
    costs: Costs | None,
    budget: Budget,
    seed: int = 0,
) -> Floats:
    """`choose`, of tempered label probabilities (n_candidates, n_images)."""
    if choice == "all":
        return np.full(len(alone), 1 / len(alone))
    if choice == "greedy":
        return bagged_from(alone, seed=seed, budget=budget, costs=costs)
    ranked = _ranked_within(alone, costs, budget)
    return _alike(alone, ranked[:1] if choice == "best single" else ranked)


def _ranked_within(alone: Probs, costs: Costs | None, budget: Budget) -> Ints:
    """Candidates by tempered log loss, leaving out any that no longer fits beside the former."""
    affordable(len(alone), budget, costs)
    chosen = np.zeros(len(alone), np.bool_)
    ranked = []
    for candidate in np.argsort([mean_loss(row) for row in alone], kind="stable"):
        if room(chosen, budget, costs)[candidate]:
            chosen[candidate] = True
            ranked.append(candidate)
    return np.array(ranked)


def _alike(given: Probs, ranked: Ints) -> Floats:
    """The first of `ranked` with equal weights, as many as give the least log loss."""
    total, losses = np.zeros(given.shape[1]), []
    for count, candidate in enumerate(ranked, start=1):
        total += given[candidate]
        losses.append(mean_loss(total / count))
    # A copy changes the loss by rounding only, and must not count as a gain.
    best = int(np.argmax(np.array(losses) <= min(losses) + TIE)) + 1
    weights = np.zeros(len(given))
    weights[ranked[:best]] = 1 / best
    return weights
