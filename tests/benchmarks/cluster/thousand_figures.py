"""From measured calls to what one driver bears: costs by load, and the slots that wait for it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from tests.benchmarks.cluster.thousand_driver import COLD, Call, Kind
from tests.benchmarks.cluster.thousand_loop import START_S
from tests.benchmarks.cluster.thousand_stub import EPOCH_S, SPREAD

# Assumptions; the simulation has neither a network nor an object store.
STATEMENT_S = 0.0005  # a statement's way to PostgreSQL and back
OBJECT_S = 0.03  # a small object's way to the object store and back
OBJECTS = 3  # requests as a trial ends: its record read and written, weights removed
# Ray's own benchmark, 200 nodes reporting once a second: 60,000 results in 2,281 s.
# https://docs.ray.io/en/latest/tune/tutorials/tune-scalability.html
TUNE_S = 2281 / 60_000
MOST_GPUS = 100_000
KINDS: tuple[Kind, ...] = ("first", "suggest", "report", "end")


@dataclass(frozen=True)
class Costs:
    """Seconds of the driver by kind of call: at rest, for each running, for each ended trial."""

    of: dict[Kind, NDArray[np.float64]]

    def seconds(self, kind: Kind, running: int, ended: int) -> float:
        return float(self.of[kind] @ (1, running, ended))

    def each_trial(self, slots: int, ended: int, epochs: float) -> float:
        """For one trial from its params to its end, with all slots taken."""
        report = epochs * self.seconds("report", slots, ended)
        return self.seconds("suggest", slots, ended) + report + self.seconds("end", slots, ended)


def fit_costs(calls: Sequence[Call], *, optunas: bool, around: bool = True) -> Costs:
    """Least squares over measured calls, no share below zero.

    Args:
        optunas: whether running trials are read back each time, as Optuna's own storage does.
        around: add what the simulation lacks: network, object store, Tune.
    """
    found: dict[Kind, NDArray[np.float64]] = {}
    for kind in KINDS:
        some = [c for c in calls if c.kind == kind and c.optunas == optunas]
        load = np.array([(1.0, c.running, c.ended) for c in some])
        taken = np.array([c.seconds for c in some])
        scale = load.max(axis=0).clip(1)
        share, _ = nnls(load / scale, taken)
        share = share / scale
        if around:
            share[0] += mean(c.statements for c in some) * STATEMENT_S
            share[0] += OBJECTS * OBJECT_S if kind == "end" else TUNE_S
        found[kind] = share
    return Costs(found)


def rate_asked(slots: int, epochs: float) -> float:
    """Trials a second that so many GPUs ask for, one trial on each."""
    return slots / (START_S + epochs * EPOCH_S)


def most_slots(costs: Costs, ended: int, epochs: float) -> int:
    """GPUs from which on the driver has no time left; MOST_GPUS is more than that."""
    low, high = 1, MOST_GPUS
    while high - low > 1:
        middle = (low + high) // 2
        share = rate_asked(middle, epochs) * costs.each_trial(middle, ended, epochs)
        low, high = (middle, high) if share < 1 else (low, middle)
    return low


class ModelDriver:
    """Serves the loop as fast as the costs say, trials of the lengths that ASHA left."""

    def __init__(self, costs: Costs, epochs: Sequence[int], *, trials: int, seed: int = 0) -> None:
        self._costs, self._epochs, self._trials = costs, epochs, trials
        self._chance = np.random.default_rng(seed)
        self._left: dict[str, int] = {}
        self._asked = self._ended = 0

    def ask(self) -> tuple[float, str | None, float]:
        if self._asked >= self._trials:
            return 0.0, None, 0.0
        kind: Kind = "suggest" if self._ended >= COLD else "first"
        seconds = self._costs.seconds(kind, len(self._left), self._ended)
        name = str(self._asked)
        self._asked += 1
        self._left[name] = int(self._chance.choice(self._epochs))
        pace = self._chance.normal(0, SPREAD) - SPREAD**2 / 2
        return seconds, name, EPOCH_S * math.exp(pace)

    def hear(self, trial: str) -> tuple[float, bool]:
        running = len(self._left)
        seconds = self._costs.seconds("report", running, self._ended)
        self._left[trial] -= 1
        if self._left[trial]:
            return seconds, True
        seconds += self._costs.seconds("end", running, self._ended)
        del self._left[trial]
        self._ended += 1
        return seconds, False
