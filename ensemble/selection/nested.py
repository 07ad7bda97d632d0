"""What each way of choosing members is worth on unseen groups, and the simplest good one's members.

Choosing the best of many on some images makes it look better on these than it is. So in every
outer fold each choice is made on the rest, pooled, given a temperature there, and scored outside.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ensemble.paired import clustered_error
from ensemble.pool import pool_logits, pool_probs
from ensemble.selection.choices import choose_from
from ensemble.selection.diversity import pairs
from ensemble.selection.greedy import (
    Bools,
    Costs,
    Floats,
    Ints,
    Probs,
    fits,
    greedy_from,
)
from ensemble.selection.results import CHOICES, Budget, Choice, ChoiceWorth, Pair, Selection
from ensemble.selection.sharpness import fit_sharpness, tempered_label_probs
from search.data.splits import assign_groups
from search.errors import StudyError
from search.training.metrics import NLL_FLOOR
from search.training.thresholds import SUM_TOLERANCE

DEFAULT_BUDGET = Budget()
ABLATION = "greedy, logit pooling"
ROUNDING = 1e-9  # nats; a difference below it is none
MOST_PAIRS, MOST_NOTES = 50, 10


def select_members(
    oof_probs: Probs,
    labels: Ints,
    groups: Ints,
    *,
    costs: Costs | None,
    budget: Budget = DEFAULT_BUDGET,
    seed: int = 0,
    folds: int = 5,
) -> Selection:
    """Choose members in the simplest way that is as good as the best, within one standard error.

    The best is the best of those that keep the budget; a choice beyond the budget is estimated,
    and may lie below it, but is not shipped.

    Args:
        oof_probs: (n_candidates, n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        groups: linked images share one, (n_images,); never split.
        costs: of each candidate; needed where the budget bounds parameters or latency.
        budget: on all members together.
        seed: of the folds and the bags.
        folds: of the estimate; fewer where there are fewer groups.

    Raises:
        StudyError: probabilities that are none, arrays that do not belong together, a single
            group, no candidate within the budget.

    Source of the rule: Breiman et al., "Classification and regression trees", 1984, section 3.4.3.
    """
    _refuse_unfit(oof_probs, labels, groups)
    alone = np.stack([tempered_label_probs(probs, labels) for probs in oof_probs])
    weights = {
        choice: choose_from(choice, alone, costs=costs, budget=budget, seed=seed)
        for choice in CHOICES
    }
    allowed: list[Choice] = [c for c in CHOICES if fits(weights[c], budget, costs)]
    fold_of = group_folds(labels, groups, folds=folds, seed=seed)
    setting = _Setting(oof_probs, labels, alone, costs, budget, seed)
    losses = _losses_outside(setting, fold_of)
    worth = _worths(losses, weights, groups, allowed)
    shipped = next(c for c in allowed if worth[c].difference <= worth[c].standard_error + ROUNDING)
    worth[shipped] = worth[shipped].model_copy(update={"shipped": True})
    alike = pairs(oof_probs, labels)
    _, trajectory = greedy_from(alone, budget=budget, costs=costs)
    return Selection(
        choice=shipped,
        weights=weights[shipped].tolist(),
        choices=list(worth.values()),
        trajectory=trajectory,
        pairs=_telling(alike, weights[shipped] > 0),
        notes=_copies(alike) + _barred(weights, allowed, budget),
    )


def group_folds(labels: Ints, groups: Ints, *, folds: int, seed: int) -> Ints:
    """The outer fold of each image, (n_images,); stratified, and no group in two.

    Raises:
        StudyError: all images are of one group.
    """
    names, index = np.unique(groups, return_inverse=True)
    count = min(folds, len(names))
    if count < 2:
        raise StudyError(
            f"all {len(labels)} images are of one group, so no choice of members can be tried on "
            "an unseen one; add images of other lesions"
        )
    fold_of = assign_groups(labels, index, [1 / count] * count, seed=seed)
    # Few groups of separate classes may all go to the first folds: then deal them out in turn.
    return fold_of if len(np.unique(fold_of)) == count else index % count


@dataclass(frozen=True)
class _Setting:
    oof_probs: Probs
    labels: Ints
    alone: Probs
    costs: Costs | None
    budget: Budget
    seed: int


def _losses_outside(setting: _Setting, fold_of: Ints) -> dict[str, Floats]:
    """Log loss of each image under choices made without its fold, (n_images,) a choice."""
    losses = {name: np.empty(len(fold_of)) for name in (*CHOICES, ABLATION)}
    for fold in np.unique(fold_of):
        outside = fold_of == fold
        for choice in CHOICES:
            weights = choose_from(
                choice,
                setting.alone[:, ~outside],
                costs=setting.costs,
                budget=setting.budget,
                seed=setting.seed,
            )
            losses[choice][outside] = _loss_outside(setting, weights, outside, pool_probs)
            if choice == "greedy":
                losses[ABLATION][outside] = _loss_outside(setting, weights, outside, pool_logits)
    return losses


def _loss_outside(
    setting: _Setting, weights: Floats, outside: Bools, pool: Callable[[Probs, Floats], Floats]
) -> Floats:
    members = weights > 0
    probs = setting.oof_probs if members.all() else setting.oof_probs[members]
    logits = np.log(np.maximum(pool(probs, weights[members]), NLL_FLOOR))
    sharpness = fit_sharpness(logits[~outside], setting.labels[~outside])
    scaled, labels = sharpness * logits[outside], setting.labels[outside]
    highest = scaled.max(axis=1)
    norm = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
    loss: Floats = np.minimum(norm - scaled[np.arange(len(labels)), labels], -np.log(NLL_FLOOR))
    return loss


def _worths(
    losses: dict[str, Floats], weights: dict[Choice, Floats], groups: Ints, allowed: list[Choice]
) -> dict[str, ChoiceWorth]:
    best = losses[min(allowed, key=lambda choice: losses[choice].mean())]
    members: dict[str, int] = {choice: int((w > 0).sum()) for choice, w in weights.items()}
    members[ABLATION] = members["greedy"]
    return {
        name: ChoiceWorth(
            choice=name,
            nll=float(loss.mean()),
            difference=float((loss - best).mean()),
            standard_error=clustered_error(loss - best, groups),
            members=members[name],
        )
        for name, loss in losses.items()
    }


def _telling(alike: list[Pair], members: Bools) -> list[Pair]:
    """Pairs of members, then near copies; the most alike first, a bounded number."""
    ranked = sorted(alike, key=lambda pair: -pair.error_correlation)
    both = [bool(members[pair.first] and members[pair.second]) for pair in ranked]
    inside = [pair for pair, within in zip(ranked, both, strict=True) if within]
    copies = [p for p, within in zip(ranked, both, strict=True) if p.near_copy and not within]
    return (inside + copies)[:MOST_PAIRS]


def _copies(alike: list[Pair]) -> list[str]:
    """A note for each candidate that is nearly a copy of an earlier one."""
    first_of: dict[int, Pair] = {}
    for pair in alike:
        if pair.near_copy:
            first_of.setdefault(pair.second, pair)
    notes = [
        f"candidate {copy} is nearly a copy of {pair.first}: their most probable classes differ on "
        f"{pair.disagreement:.1%} of the images and their errors correlate at "
        f"{pair.error_correlation:.3f}"
        for copy, pair in sorted(first_of.items())
    ]
    more = len(notes) - MOST_NOTES
    return notes if more <= 0 else [*notes[:MOST_NOTES], f"{more} more are nearly copies of others"]


def _barred(weights: dict[Choice, Floats], allowed: list[Choice], budget: Budget) -> list[str]:
    asked = ", ".join(f"{name} {bound:g}" for name, bound in budget if bound is not None)
    return [
        f"{choice!r} cannot be shipped: its {int((weights[choice] > 0).sum())} members are beyond "
        f"the budget ({asked})"
        for choice in CHOICES
        if choice not in allowed
    ]


def _refuse_unfit(oof_probs: Probs, labels: Ints, groups: Ints) -> None:
    shape = np.shape(oof_probs)
    if len(shape) != 3 or shape[0] < 1 or shape[1] < 1 or shape[2] < 2:
        raise StudyError(
            "probabilities must be (candidates, images, at least 2 classes), their shape is "
            f"{shape}; check the study's tables of probabilities"
        )
    if labels.shape != shape[1:2] or groups.shape != shape[1:2]:
        raise StudyError(
            f"candidates have probabilities of {shape[1]} images, but there are {labels.shape} "
            f"labels and {groups.shape} groups; search into another output folder"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= shape[2]:
        raise StudyError(
            f"labels must be integers from 0 to {shape[2] - 1}, they are {labels.dtype} from "
            f"{labels.min()} to {labels.max()}; are the study's classes the config's?"
        )
    for candidate, probs in enumerate(oof_probs):
        _refuse_no_probs(candidate, probs)


def _refuse_no_probs(candidate: int, probs: Probs) -> None:
    finite = np.isfinite(probs).all(axis=1)
    if not finite.all():
        raise StudyError(
            f"candidate {candidate} has NaN or infinite probabilities on {int((~finite).sum())} "
            f"images, the first is {int(finite.argmin())}; leave it out, or train it again"
        )
    off = np.abs(probs.sum(axis=1, dtype=np.float64) - 1)
    if probs.min() < 0 or off.max() > SUM_TOLERANCE:
        raise StudyError(
            f"candidate {candidate}: probabilities must not be negative and must sum to 1 within "
            f"{SUM_TOLERANCE}; the lowest is {probs.min():.3g}, a sum is {off.max():.3g} off; "
            "are these logits? Train it again"
        )
