"""What a service goes on with when members are lost: a decision for each subset that is left."""

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ensemble.decision.fit import Decided
from ensemble.manifest import Survivors
from ensemble.pool import pool_probs

Floats = NDArray[np.float64]
Probs = NDArray[np.floating]
Fit = Callable[[Floats], Decided]  # fit_decision with all but the pool given

ALL_SUBSETS = 5  # up to so many members every subset is fitted: 30
LOST = 2  # with more of them, those that lost at most so many


def surviving_subsets(
    n_members: int, prefixes: Iterable[Sequence[int]] = ()
) -> list[tuple[int, ...]]:
    """Proper, non-empty subsets of members that get a decision of their own.

    Up to 5 members all of them; with more, those that lost at most two, each member alone, and
    the prefixes.

    Args:
        prefixes: that a cascade needs, in any order of members; see `ensemble.cascade.prefixes`.

    Returns:
        Ascending member indices, the largest subsets first, then in lexical order.
    """
    sizes = set(range(1, n_members))
    if n_members > ALL_SUBSETS:
        sizes = {1, *range(n_members - LOST, n_members)}
    found = {subset for size in sizes for subset in combinations(range(n_members), size)}
    found |= {tuple(sorted(prefix)) for prefix in prefixes}
    return sorted(found, key=lambda subset: (-len(subset), subset))


def pool_subset(member_probs: Probs, weights: Probs, subset: Sequence[int]) -> Floats:
    """Pool some members with their weights renormalised.

    Args:
        member_probs: of all members, (n_members, n_images, n_classes).
        weights: of all members, (n_members,), above 0.
        subset: indices of those that are left.

    Returns:
        (n_images, n_classes); rows sum to 1.
    """
    chosen = list(subset)
    kept = np.asarray(weights, np.float64)[chosen]
    return pool_probs(member_probs[chosen], kept / kept.sum())


def fit_survivors(
    member_probs: Probs,
    weights: Probs,
    names: Sequence[str],
    *,
    fit: Fit,
    subsets: Sequence[Sequence[int]],
) -> list[Survivors]:
    """A calibrator and operating points for each subset, as the whole ensemble has them.

    Args:
        member_probs: of held-back cases, (n_members, n_images, n_classes).
        weights: (n_members,), above 0.
        names: of the members, in the same order.
        fit: from a pool of these cases, (n_images, n_classes), to a decision: `fit_decision` with
            the labels and all else given, the very one that decided for the whole ensemble.
        subsets: indices of the members that are left; see `surviving_subsets`.

    Returns:
        One for each subset, in its order.
    """
    found = []
    for subset in subsets:
        decided = fit(pool_subset(member_probs, weights, subset))
        found.append(
            Survivors(
                members=[names[i] for i in subset],
                calibrator=decided.calibrator,
                operating_points=decided.operating_points,
            )
        )
    return found
