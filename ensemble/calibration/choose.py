"""Which calibrator: the simplest that is as good as the best on groups it was not fitted to."""

import numpy as np
from numpy.typing import NDArray

from ensemble.calibration.calibrators import Calibrator, Kind
from ensemble.calibration.fits import check_held_back, fit, fit_part
from ensemble.calibration.logits import Floats, Probs, log_probs
from ensemble.calibration.results import CalibratorWorth
from ensemble.paired import clustered_error
from search.data.splits import assign_groups
from search.training.metrics import nll

Ints = NDArray[np.int64]

# Simplest first. An isotonic fit is the last of the two-class ones: it has most freedom.
OF_TWO: tuple[Kind, ...] = ("identity", "temperature", "platt", "beta", "venn_abers")
OF_MORE: tuple[Kind, ...] = ("identity", "temperature", "vector", "structured")
WITH_FEW: frozenset[Kind] = frozenset({"identity", "temperature", "platt"})
LEAST_OF_A_CLASS = 50  # cases, for more than two parameters
LEAST_FOR_ISOTONIC = 1000  # cases


def choose_calibrator(
    probs: Probs,
    labels: Ints,
    groups: Ints,
    *,
    positive: int | None,
    folds: int = 5,
    seed: int = 0,
) -> tuple[Calibrator, list[CalibratorWorth]]:
    """Choose by group-safe cross-fitted log loss, simplest within one standard error of the best.

    Where the images cannot be divided (one group), nothing can be compared: they stay as they are.

    Args:
        probs: pooled, (n_images, n_classes); rows sum to 1.
        labels: class indices, (n_images,).
        groups: linked images share a group id, (n_images,).
        positive: of two classes, the one whose probability is calibrated; 1 if None.
        folds: at most; fewer where there are fewer groups.
        seed: of the folds.

    Returns:
        The calibrator fitted to all images, and the worth of each candidate, simplest first.

    Raises:
        StudyError: no image, NaN, or, with two classes, images of one class only.
        ValueError: probabilities or labels out of range.
    """
    column = 1 if positive is None else positive
    check_held_back(probs, labels, column=column)
    nll(probs, labels)  # refuses what are no probabilities
    fold_of = divide(labels, groups, folds=folds, seed=seed)
    divided = len(np.unique(fold_of)) > 1
    kinds = candidate_kinds(labels, groups, probs.shape[1]) if divided else OF_TWO[:1]
    losses = np.stack(
        [cross_fitted_losses(kind, probs, labels, fold_of, column=column) for kind in kinds]
    )
    differences = losses - losses[losses.mean(axis=1).argmin()]
    errors = [clustered_error(row, groups) for row in differences]
    chosen = int(np.argmax(differences.mean(axis=1) <= errors))
    worths = [
        CalibratorWorth(
            kind=kind,
            nll=float(losses[i].mean()),
            difference=float(differences[i].mean()),
            standard_error=errors[i],
            chosen=i == chosen,
        )
        for i, kind in enumerate(kinds)
    ]
    return fit(kinds[chosen], probs, labels, column=column), worths


def candidate_kinds(labels: Ints, groups: Ints, n_classes: int) -> tuple[Kind, ...]:
    """What the counts allow, simplest first.

    A case is a group: linked images tell little more than one of them. With fewer than 50 cases of
    the rarest class present there are only identity, temperature and, for two classes, Platt; with
    fewer than 1,000 cases in all there is no Venn-Abers, which is isotonic.
    """
    kinds = OF_TWO if n_classes == 2 else OF_MORE
    rarest = min(len(np.unique(groups[labels == k])) for k in np.unique(labels))
    if rarest < LEAST_OF_A_CLASS:
        return tuple(kind for kind in kinds if kind in WITH_FEW)
    if len(np.unique(groups)) < LEAST_FOR_ISOTONIC:
        return tuple(kind for kind in kinds if kind != "venn_abers")
    return kinds


def divide(labels: Ints, groups: Ints, *, folds: int, seed: int) -> Ints:
    """A fold for each image, (n_images,): groups stay whole, classes are spread evenly.

    Of the folds asked for some are left empty where there are too few groups.
    """
    n_folds = max(1, min(folds, len(np.unique(groups))))
    return assign_groups(labels, groups, [1 / n_folds] * n_folds, seed=seed)


def cross_fitted_losses(
    kind: Kind, probs: Probs, labels: Ints, fold_of: Ints, *, column: int
) -> Floats:
    """Log loss of each image, (n_images,), calibrated by a fit to the other folds."""
    calibrated = np.empty(probs.shape)
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        rest = ~held_out
        calibrator = fit_part(kind, probs[rest], labels[rest], column=column)
        calibrated[held_out] = calibrator.apply(probs[held_out])
    return -log_probs(calibrated[np.arange(len(labels)), labels])
