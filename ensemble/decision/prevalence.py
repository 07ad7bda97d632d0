"""Probabilities for a place where the classes are rarer or commoner than in the held-back cases."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search.errors import ConfigError

Floats = NDArray[np.float64]

SUM_TOLERANCE = 1e-6


def shift_prevalence(
    probs: NDArray[np.floating],
    from_prevalence: NDArray[np.floating],
    to_prevalence: NDArray[np.floating],
) -> Floats:
    """Correct calibrated probabilities for other shares of the classes: p_k * to_k / from_k.

    Right where only the shares differ, and images of one class look alike in both places.

    Args:
        probs: (n_images, n_classes); rows sum to 1.
        from_prevalence: (n_classes,), where the calibrator was fitted; sums to 1.
        to_prevalence: (n_classes,), where the probabilities are for; 0 where, and only where,
            `from_prevalence` is 0: such a class keeps its odds by a factor of 1.

    Returns:
        (n_images, n_classes); rows sum to 1.

    Raises:
        ValueError: shapes that differ, or a share that is 0 in one place only.

    Source: Saerens et al., "Adjusting the outputs of a classifier to new a priori probabilities",
    Neural Computation 2002.
    """
    p = np.asarray(probs, np.float64)
    old, new = np.asarray(from_prevalence, np.float64), np.asarray(to_prevalence, np.float64)
    if p.ndim != 2 or not old.shape == new.shape == p.shape[1:]:
        raise ValueError(f"shapes do not fit: probs {p.shape}, shares {old.shape} and {new.shape}")
    if ((old > 0) != (new > 0)).any():
        raise ValueError("a class's share is 0 in one place and not in the other")
    weighed = p * np.divide(new, old, out=np.ones_like(old), where=old > 0)
    shifted: Floats = weighed / weighed.sum(axis=1, keepdims=True)
    return shifted


def prevalence_of(
    classes: Sequence[str], stored: Mapping[str, float], wanted: Mapping[str, float]
) -> Floats:
    """The share of every class, (n_classes,), where only some are named.

    Args:
        classes: names, in the order of the probabilities' columns.
        stored: share of each class where the calibrator was fitted.
        wanted: share by class, in (0, 1); classes that are not named share what is left in their
            stored proportions. None named: the stored shares.

    Raises:
        ConfigError: an unknown class, one without held-back cases, a share outside (0, 1), or a
            sum that leaves nothing for the others or, with all named, is not 1.
    """
    _check_named(classes, stored, wanted)
    others = [name for name in classes if name not in wanted and stored[name] > 0]
    total = sum(wanted.values())
    if not others and abs(total - 1) > SUM_TOLERANCE:
        raise ConfigError(
            f"prevalence: all classes are named and the shares sum to {total:g}; make them sum to 1"
        )
    if others and total > 1 - SUM_TOLERANCE:
        raise ConfigError(
            f"prevalence: the shares sum to {total:g} and leave nothing for {', '.join(others)}; "
            "make them smaller"
        )
    left = (1 - total) / sum(stored[name] for name in others) if others else 0.0
    shares = np.array([wanted.get(name, left * stored[name]) for name in classes], np.float64)
    whole: Floats = shares / shares.sum()
    return whole


def _check_named(
    classes: Sequence[str], stored: Mapping[str, float], wanted: Mapping[str, float]
) -> None:
    for name, share in wanted.items():
        if name not in classes:
            raise ConfigError(f"prevalence: no class {name!r}; name some of {', '.join(classes)}")
        if not 0 < share < 1:
            raise ConfigError(f"prevalence: {name} is {share:g}; give a share between 0 and 1")
        if stored[name] <= 0:
            raise ConfigError(
                f"prevalence: {name} has no held-back case, so its probability cannot be shifted; "
                "leave it out"
            )
