"""How fast an ensemble is found: python -m tests.benchmarks.ensemble [--candidates N --images N].

Selection with its nested estimate, calibration, certification and the bootstrap, on simulated
candidates of nine classes; beside each, the straightforward way to do the same, or
scikit-learn's. Tables go to stderr, one line of JSON to stdout.
"""

import argparse
import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cluster.console import messages, print_json, table
from ensemble.calibration.fits import fit
from ensemble.decision.fit import certifying_half, fit_decision
from ensemble.decision.points import PointConfig
from ensemble.evaluation.bootstrap import bootstrap
from ensemble.evaluation.table import MetricTable
from ensemble.pool import pool_probs
from ensemble.selection.greedy import Costs, greedy
from ensemble.selection.nested import select_members
from ensemble.selection.results import Budget
from tests.benchmarks.plain_bootstrap import plain_bootstrap
from tests.benchmarks.plain_calibration import fit_plain
from tests.benchmarks.plain_selection import plain_greedy

T = TypeVar("T")
CLASSES = 9
ROUNDS = 25
REPLICATES = 2000
FEW = 20  # replicates of the straightforward bootstrap, which is then scaled
POINTS = {
    "screening": PointConfig(sensitivity=0.95),
    "expected": PointConfig(false_negative_rate=0.05),
}


@dataclass(frozen=True)
class Material:
    """Simulated candidates of different worth, three images a lesion.

    Attributes:
        oof_probs: (n_candidates, n_images, 9), float32.
        labels, groups: (n_images,).
    """

    oof_probs: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]


@dataclass
class Bench:
    """Seconds of each part, and of what it is set beside."""

    rows: list[dict[str, object]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)

    def add(self, what: str, ours: float, plain: float | None, beside: str) -> None:
        ratio = None if plain is None else plain / ours
        self.rows.append(
            {"what": what, "seconds": ours, "beside": beside, "its seconds": plain, "ratio": ratio}
        )


def simulate(n_candidates: int, n_images: int) -> Material:
    """Candidates between useless and good, their errors partly shared."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, CLASSES, n_images)
    shared = rng.normal(size=(n_images, CLASSES)).astype(np.float32)
    probs = np.empty((n_candidates, n_images, CLASSES), np.float32)
    for i, signal in enumerate(rng.uniform(0, 3, n_candidates)):
        logits = shared + rng.normal(size=shared.shape).astype(np.float32)
        logits[np.arange(n_images), labels] += signal
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probs[i] = powers / powers.sum(axis=1, keepdims=True)
    return Material(probs, labels, np.arange(n_images) // 3)


def timed(what: str, work: Callable[[], T]) -> tuple[T, float]:
    messages.print(what)
    start = perf_counter()
    found = work()
    return found, perf_counter() - start


def run(material: Material, *, replicates: int) -> Bench:
    """All parts, ours first: the peak of memory is measured before the others begin."""
    bench, m = Bench(), material
    n = len(m.oof_probs)
    costs = Costs(params_m=np.full(n, 2.0), latency_ms=np.full(n, 10.0))
    (_, trajectory), greedy_s = timed(
        "greedy selection", lambda: greedy(m.oof_probs, m.labels, rounds=ROUNDS)
    )

    def whole() -> NDArray[np.float64]:
        selection = select_members(m.oof_probs, m.labels, m.groups, costs=costs, budget=Budget())
        pooled = pool_probs(m.oof_probs, np.array(selection.weights))
        half = certifying_half(m.labels, m.groups, positive=0, n_classes=CLASSES)
        return fit_decision(
            pooled, m.labels, m.groups, positive=0, points=POINTS, certifies=half
        ).calibrated

    probs, nested_s = timed("selection with nested estimate, calibration, certification", whole)
    metrics = MetricTable(probs, m.labels, positive=0)
    _, bootstrap_s = timed(
        f"{replicates} replicates of the whole metric table",
        lambda: bootstrap(metrics, m.groups, replicates=replicates),
    )
    pooled = m.oof_probs[0].astype(np.float64)
    calibrator, temperature_s = timed("temperature", lambda: fit("temperature", pooled, m.labels))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    (_, plain_trajectory), plain_s = timed(
        "greedy selection, straightforward", lambda: plain_greedy(m.oof_probs, m.labels, ROUNDS)
    )
    if not np.allclose(trajectory, plain_trajectory, atol=1e-4):
        raise AssertionError("the two greedy selections differ")
    few, plain_bootstrap_s = timed(
        f"{FEW} replicates, straightforward, without what evaluate_probs lacks",
        lambda: plain_bootstrap(probs, m.labels, m.groups, positive=0, replicates=FEW, seed=0),
    )
    del few
    sklearns, sklearn_s = timed(
        "temperature, scikit-learn's", lambda: fit_plain("temperature", pooled, m.labels)
    )
    off = float(np.abs(calibrator.apply(pooled) - sklearns(pooled)).max())
    bench.add("greedy selection", greedy_s, plain_s, "straightforward")
    bench.add("nested selection, calibration, certification", nested_s, None, "")
    scaled = plain_bootstrap_s * replicates / FEW
    bench.add(f"bootstrap, {replicates}", bootstrap_s, scaled, f"straightforward, {FEW} scaled")
    bench.add("temperature", temperature_s, sklearn_s, f"scikit-learn ({off:.0e} apart)")
    bench.figures = {
        "nested_selection_s": nested_s,
        "greedy_s": greedy_s,
        "bootstrap_s": bootstrap_s,
        "peak_mb": peak_mb,
        "ratio_to_plain": plain_s / greedy_s,
        "ratio_bootstrap": scaled / bootstrap_s,
        "ratio_temperature": sklearn_s / temperature_s,
    }
    return bench


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    given = parser.parse_args()
    material = simulate(given.candidates, given.images)
    bench = run(material, replicates=given.replicates)
    table(f"{given.candidates} candidates, {given.images} images", bench.rows, to=messages)
    print_json(bench.figures)


if __name__ == "__main__":
    main()
