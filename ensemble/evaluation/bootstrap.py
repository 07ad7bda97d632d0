"""Intervals by the grouped bootstrap: linked images are drawn, or left out, together.

A replicate draws as many groups as there are, with replacement; an image counts as often as its
group was drawn. The interval is the middle 95% of the replicates, those where the number is
undefined left out. It is given only where nearly all are defined and there are five groups: of
one melanoma a bootstrap knows how the others vary, and nothing of melanomas.

Source: Efron & Tibshirani, "An introduction to the bootstrap", 1993, chapter 13; groups: Davison
& Hinkley, "Bootstrap methods and their application", 1997, section 3.8.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ensemble.evaluation.results import Difference, Estimate, Estimates
from ensemble.evaluation.table import MetricTable

Floats = NDArray[np.float64]
Groups = Sequence[Any] | NDArray[Any]

REPLICATES = 2000
TAILS = (2.5, 97.5)  # percentiles
DEFINED = 0.99  # share of the replicates; five groups of a class are there in 99.3% of draws
FEWEST_GROUPS = 5
LEANING = {"ece"}  # its replicates lean upwards by about as much as the number itself does
NUMBERS_AT_ONCE = 320_000  # weights of a batch: its arrays stay in the processor's cache


@overload
def bootstrap(
    table: MetricTable,
    groups: Groups,
    *,
    replicates: int = ...,
    seed: int = ...,
    threads: int = ...,
) -> Estimates: ...
@overload
def bootstrap(
    table: Mapping[str, MetricTable],
    groups: Groups,
    *,
    replicates: int = ...,
    seed: int = ...,
    threads: int = ...,
) -> dict[str, Estimates]: ...
def bootstrap(
    table: MetricTable | Mapping[str, MetricTable],
    groups: Groups,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    threads: int = 2,
) -> Estimates | dict[str, Estimates]:
    """Every metric of a table, or of several tables of the same images, with its interval.

    Args:
        table: one, or several by name: they share the replicates.
        groups: what links images, (n_images,): equal values are drawn together.
        replicates: draws.
        seed: the same seed, groups and images give the same draws.
        threads: batches of replicates at a time.

    Raises:
        ValueError: groups or tables of another number of images.
    """
    tables = {"": table} if isinstance(table, MetricTable) else dict(table)
    drawn = _replicated(tables, groups, replicates=replicates, seed=seed, threads=threads)
    found = {
        key: {
            name: estimate(value, drawn[key][name], leaning=name in LEANING)
            for name, value in one.once().items()
        }
        for key, one in tables.items()
    }
    return found[""] if isinstance(table, MetricTable) else found


def paired_differences(
    table: MetricTable,
    others: Mapping[str, MetricTable],
    groups: Groups,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    threads: int = 2,
) -> list[Difference]:
    """The table minus each other one on the same images, replicate by replicate.

    Args and Raises: as `bootstrap`. Metrics that only one of the two has are left out.
    """
    tables = {f"against {name}": other for name, other in others.items()} | {"": table}
    drawn = _replicated(tables, groups, replicates=replicates, seed=seed, threads=threads)
    own = table.once()
    differences = []
    for name, other in others.items():
        theirs, draws = other.once(), drawn[f"against {name}"]
        metrics = {
            metric: estimate(own[metric] - theirs[metric], drawn[""][metric] - draws[metric])
            for metric in own
            if metric in theirs
        }
        differences.append(Difference(against=name, metrics=metrics))
    return differences


def estimate(value: float, draws: Floats, *, leaning: bool = False) -> Estimate:
    """A number and the middle 95% of its replicates, (n_replicates,), NaN where undefined.

    A calibration error's replicates lean upwards, for a drawn set has fewer distinct images: its
    interval is the basic one, mirrored at the number, and stretched to hold it. Being a mean of
    absolute gaps it is above 0 even for a perfectly calibrated bundle.

    Source of the basic interval: Davison & Hinkley, 1997, section 5.2.
    """
    if math.isnan(value):
        return Estimate(value=None)
    defined = draws[~np.isnan(draws)]
    if len(defined) < DEFINED * len(draws) or len(defined) == 0:
        return Estimate(value=value)
    low, high = np.percentile(defined, TAILS)
    if leaning:
        low, high = max(2 * value - high, 0.0), 2 * value - low
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))


def replicate(
    values: Callable[[Floats], Floats],
    groups: Groups,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    threads: int = 2,
) -> Floats:
    """Numbers of every replicate, (n_numbers, n_replicates).

    Args:
        values: from counts, (n_replicates, n_images), to (n_numbers, n_replicates).
        groups: as in `bootstrap`.
        replicates, seed, threads: as in `bootstrap`.
    """
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    size = int(np.clip(NUMBERS_AT_ONCE // len(group), 16, 256))

    def batch(first: int) -> Floats:
        return values(_draw(group, size, seed=(seed, first)).T)

    with ThreadPoolExecutor(threads) as pool:
        batches = list(pool.map(batch, range(0, replicates, size)))
    found = np.concatenate(batches, axis=1)[:, :replicates]
    return found if int(group.max()) + 1 >= FEWEST_GROUPS else np.full_like(found, math.nan)


def _draw(group: NDArray[np.intp], size: int, *, seed: tuple[int, int]) -> Floats:
    """How often each image is drawn, (n_images, size)."""
    n_groups = int(group.max()) + 1
    drawn = np.random.default_rng(seed).integers(0, n_groups, (n_groups, size))
    cells = drawn * size + np.arange(size)
    times = np.bincount(cells.ravel(), minlength=n_groups * size).reshape(n_groups, size)
    counts: Floats = times.astype(np.float64)[group]
    return counts


def _replicated(
    tables: Mapping[str, MetricTable], groups: Groups, *, replicates: int, seed: int, threads: int
) -> dict[str, dict[str, Floats]]:
    """Draws by table and metric, (n_replicates,) each."""
    for table in tables.values():
        if table.n_images != len(groups):
            raise ValueError(
                f"groups must be one an image: {len(groups)} for {table.n_images} images"
            )

    def values(counts: Floats) -> Floats:
        return np.stack([v for t in tables.values() for v in t.values(counts).values()])

    rows = iter(replicate(values, groups, replicates=replicates, seed=seed, threads=threads))
    return {key: {name: next(rows) for name in table.names} for key, table in tables.items()}
