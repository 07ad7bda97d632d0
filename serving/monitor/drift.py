"""How far the newest images have moved from those that the bundle was made with."""

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping

import numpy as np

from ensemble.profile import BINS, Deciles, Profile, psi

ENOUGH = 100  # images; of fewer the index says more about chance than about drift
PROBABILITY = "probability"


class Drift:
    """Counts the newest images by the bins of the bundle's profile. Safe to call from threads."""

    def __init__(self, profile: Profile | None, window: int) -> None:
        """Begin with no images.

        Args:
            profile: the bundle's; None: nothing is counted or told.
            window: newest images that are kept, as bin numbers; below 100 nothing is ever told.
        """
        self._deciles: dict[str, Deciles] = {}
        if profile is not None and window >= ENOUGH:
            self._deciles = {**profile.statistics, PROBABILITY: profile.probability}
        self._lock = threading.Lock()
        self._window = window
        self._ring: deque[bytes] = deque()  # a bin number for each series, by image
        self._counts = [[0] * BINS for _ in self._deciles]

    def add(self, statistics: Mapping[str, float], probability: float) -> None:
        """Count an image; beyond the window the oldest is forgotten.

        Args:
            statistics: of the pixels of the profile's member, by `ensemble.profile.measure`.
            probability: calibrated, as `ensemble.profile.watched` gives it.
        """
        if not self._deciles:
            return
        values = {**statistics, PROBABILITY: probability}
        bins = bytes(bisect_right(d.edges, values[name]) for name, d in self._deciles.items())
        with self._lock:
            oldest = self._ring.popleft() if len(self._ring) == self._window else None
            self._ring.append(bins)
            for i, counts in enumerate(self._counts):
                counts[bins[i]] += 1
                if oldest is not None:
                    counts[oldest[i]] -= 1

    def values(self) -> dict[str, float]:
        """Population stability index by statistic and of the probability; empty below 100 images.

        Up to 0.1 counts as stable and above 0.25 as moved; see `ensemble.profile.psi` for how much
        of it is chance.
        """
        with self._lock:
            if len(self._ring) < ENOUGH:
                return {}
            found = np.array(self._counts)
        return {
            name: psi(np.array(deciles.shares), found[i])
            for i, (name, deciles) in enumerate(self._deciles.items())
        }
