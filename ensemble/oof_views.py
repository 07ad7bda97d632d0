"""Whether test-time augmentation pays, weighed on out-of-fold images."""

from collections.abc import Sequence

import numpy as np

from ensemble.calibration.fits import fit_temperature
from ensemble.candidates import Candidates, oof_views
from ensemble.config import EnsembleConfig, Views
from ensemble.pool import pool_probs
from ensemble.views import N_VIEWS, ViewsWorth, choose_views
from search.config import ExperimentConfig

LIMIT = 500  # images; eight views of each are asked about


def choose_test_views(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    candidates: Candidates,
    weights: Sequence[float],
    *,
    latency_ms: float,
) -> tuple[Views, list[ViewsWorth]]:
    """The views that the config names, or the simplest within one standard error of the best.

    Every fold's network sees only images of its own fold, at most 500 in all. Each kind of views
    is judged after its own temperature: to be less sure is what a calibrator gives for nothing.
    Kinds that the latency budget does not allow are not offered.

    Args:
        weights: by candidate; 0 is left out.
        latency_ms: of all members, with one view.

    Returns:
        The views, and the worth of each kind; none where the config names them.
    """
    if ensemble.test_time_augmentation != "auto":
        return ensemble.test_time_augmentation, []
    rng = np.random.default_rng(config.seed)
    n = len(candidates.labels)
    rows = np.sort(rng.permutation(n)[:LIMIT])
    chosen = [i for i, weight in enumerate(weights) if weight > 0]
    # (n_members, n_views, n_images, n_classes)
    probs = np.stack([oof_views(config, candidates, i, rows) for i in chosen])
    shares = np.array([weights[i] for i in chosen])
    most = _affordable(ensemble, latency_ms)
    kinds = {
        views: pool_probs(probs[:, :count].mean(axis=1), shares)
        for views, count in N_VIEWS.items()
        if count <= most
    }
    labels = candidates.labels[rows]
    calibrated = {v: fit_temperature(p, labels).apply(p) for v, p in kinds.items()}
    return choose_views(calibrated, labels, candidates.groups[rows])


def _affordable(ensemble: EnsembleConfig, latency_ms: float) -> float:
    """How many views the latency budget allows; one in any case."""
    limit = ensemble.budget.latency_ms
    return max(1.0, np.inf if limit is None else limit / latency_ms)
