"""Whether test-time augmentation pays, weighed on out-of-fold images."""

from collections.abc import Sequence

import numpy as np

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
) -> tuple[Views, list[ViewsWorth]]:
    """The views that the config names, or the simplest within one standard error of the best.

    Every fold's network sees only images of its own fold, at most 500 in all.

    Args:
        weights: by candidate; 0 is left out.

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
    kinds = {
        views: pool_probs(probs[:, :count].mean(axis=1), shares) for views, count in N_VIEWS.items()
    }
    return choose_views(kinds, candidates.labels[rows], candidates.groups[rows])
