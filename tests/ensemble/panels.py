"""Three simulated members that see the same images, and decide as a panel."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ensemble.calibration.calibrators import Identity
from ensemble.cascade import Panel
from ensemble.config import CascadeConfig
from ensemble.decision.fit import Decided
from ensemble.decision.points import OperatingPoint
from ensemble.manifest import Survivors
from ensemble.survivors import surviving_subsets
from tests.points import a_point

Floats = NDArray[np.float64]
CONFIG = CascadeConfig()
EQUAL = np.full(3, 1 / 3)
LATENCIES = np.array([1.0, 4.0, 10.0])


def ask(rng: np.random.Generator, n: int, *, sharp: float = 4.0, noise: float = 1.0) -> Floats:
    """Three members that see the same images, each with its own noise: (3, n, 2)."""
    truth = rng.integers(0, 2, n)
    shown = sharp * (truth - 0.5) + rng.normal(0, 1, n)
    logits = 1.5 * (shown + rng.normal(0, noise, (3, n)))
    positive = 1 / (1 + np.exp(-logits))
    return np.stack([1 - positive, positive], axis=2)


def point(threshold: float = 0.4, *, refer_from: float | None = None) -> OperatingPoint:
    name = "first" if refer_from is None else "band"
    return a_point(name, threshold, refer_from=refer_from)


def panel(points: Sequence[OperatingPoint], *, latencies: Floats = LATENCIES) -> Panel:
    names = ["a", "b", "c"]
    survivors = [
        Survivors(members=[names[i] for i in s], calibrator=Identity(), operating_points=[])
        for s in surviving_subsets(3)
    ]
    decided = Decided(Identity(), [], list(points), np.zeros((0, 2)))
    return Panel(names, EQUAL, latencies, 1, decided, survivors)
