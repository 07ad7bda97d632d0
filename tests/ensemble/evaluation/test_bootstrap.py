"""Bootstrap intervals cover the truth, respect groups and pair what is compared."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.evaluation.bootstrap import bootstrap, estimate, paired_differences, replicate
from ensemble.evaluation.table import MetricTable
from tests.benchmarks.plain_bootstrap import plain_bootstrap

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def two_columns(score: Floats) -> Floats:
    return np.stack([1 - score, score], axis=1)


def drawn(n: int, *, seed: int = 0) -> tuple[Floats, Ints]:
    rng = np.random.default_rng(seed)
    score = rng.uniform(0.05, 0.95, n)
    return two_columns(score), (rng.uniform(size=n) < score).astype(np.int64)


# What one interval is


def test_the_interval_is_the_middle_of_the_defined_replicates() -> None:
    draws = np.append(np.arange(101.0), math.nan)
    found = estimate(40, draws)
    assert (found.value, found.low, found.high) == (40, 2.5, 97.5)


def test_replicates_that_are_often_undefined_give_no_interval() -> None:
    found = estimate(0.5, np.append(np.full(98, 0.4), [math.nan, math.nan]))
    assert (found.value, found.low, found.high) == (0.5, None, None)


def test_of_fewer_than_five_groups_nothing_is_sure() -> None:
    probs, labels = drawn(60)
    found = bootstrap(MetricTable(probs, labels, positive=1), np.arange(60) % 4, replicates=50)
    assert found["brier"].value is not None
    assert (found["brier"].low, found["brier"].high) == (None, None)


def test_a_single_positive_gives_its_auroc_no_interval() -> None:
    probs, _ = drawn(60)
    labels = (np.arange(60) == 7).astype(np.int64)
    found = bootstrap(MetricTable(probs, labels, positive=1), np.arange(60), replicates=100)
    assert found["auroc"].value is not None
    assert found["auroc"].low is None
    assert found["brier"].low is not None


def test_a_calibration_error_is_mirrored_and_holds_itself() -> None:
    leaning = estimate(0.03, np.linspace(0.04, 0.08, 101), leaning=True)
    assert leaning.low == 0
    assert leaning.high == 0.03
    assert estimate(0.05, np.linspace(0.04, 0.08, 101), leaning=True).low == pytest.approx(0.021)


def test_an_undefined_number_has_neither_value_nor_interval() -> None:
    found = estimate(math.nan, np.array([0.4, 0.5]))
    assert (found.value, found.low, found.high) == (None, None, None)


def test_images_of_a_group_are_drawn_equally_often() -> None:
    groups = ["a", "b", "a", "c", "b", "d", "e"]
    counts = replicate(lambda drawn: drawn.T, groups, replicates=40, threads=1)
    assert counts.shape == (7, 40)
    assert (counts[0] == counts[2]).all()
    assert (counts[1] == counts[4]).all()
    assert (counts[[0, 1, 3, 5, 6]].sum(axis=0) == 5).all()
    assert (counts[0] != counts[1]).any()


def test_the_same_seed_gives_the_same_intervals_with_any_number_of_threads() -> None:
    probs, labels = drawn(50)
    table = MetricTable(probs, labels, positive=1)
    one, two, other = (
        bootstrap(table, np.arange(50), replicates=300, seed=seed, threads=threads)
        for seed, threads in ((5, 1), (5, 2), (6, 2))
    )
    assert one == two
    assert one != other
    assert list(one) == list(table.names)


def test_all_values_are_those_of_the_images_as_they_are() -> None:
    probs, labels = drawn(60)
    table = MetricTable(probs, labels, positive=1)
    found = bootstrap(table, np.arange(60), replicates=100)
    assert {name: e.value for name, e in found.items()} == pytest.approx(table.once())
    for name in ("auroc", "nll", "brier", "aurc", "calibration_slope"):
        low, value, high = found[name].low, found[name].value, found[name].high
        assert low is not None
        assert value is not None
        assert high is not None
        assert low < value < high


def test_it_agrees_with_drawing_the_rows_themselves() -> None:
    probs, labels = drawn(120)
    groups = np.arange(120) // 2
    found = bootstrap(MetricTable(probs, labels, positive=1), groups, replicates=800)
    plain = plain_bootstrap(probs, labels, groups, positive=1, replicates=800, seed=1)
    del plain["ece"]  # whose interval is mirrored
    for name, (low, high) in plain.items():
        width = high - low
        assert found[name].low == pytest.approx(low, abs=0.15 * width), name
        assert found[name].high == pytest.approx(high, abs=0.15 * width), name


def test_groups_of_another_number_are_refused() -> None:
    table = MetricTable(*drawn(5))
    with pytest.raises(ValueError, match=r"groups must be one an image: 4 for 5 images"):
        bootstrap(table, np.arange(4))


# Coverage, simulated


def covered(
    truth: float, draw: Callable[[int], tuple[Floats, Ints, Ints]], *, n: int, name: str
) -> float:
    """Share of n simulated sets whose interval holds the truth."""
    hits = 0
    for seed in range(n):
        probs, labels, groups = draw(seed)
        table = MetricTable(probs, labels, positive=1, only=(name,))
        found = bootstrap(table, groups, replicates=300, seed=seed, threads=1)[name]
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    return hits / n


def grouped(seed: int) -> tuple[Floats, Ints, Ints]:
    """200 patients with four images each, of one outcome and one score."""
    probs, labels = drawn(200, seed=seed)
    return probs.repeat(4, axis=0), labels.repeat(4), np.arange(200).repeat(4)


def ungrouped(seed: int) -> tuple[Floats, Ints, Ints]:
    probs, labels, _ = grouped(seed)
    return probs, labels, np.arange(800)


# E[2 p (1 - p)] for p uniform on [0.05, 0.95], and P(score of a positive > of a negative).
BRIER = 2 * (0.5 - (0.95**3 - 0.05**3) / 3 / 0.9)


def auroc_by_integral() -> float:
    p = np.linspace(0.05, 0.95, 2001)
    positive, negative = p / p.sum(), (1 - p) / (1 - p).sum()
    below = np.cumsum(negative) - negative / 2
    return float(positive @ below)


def test_nominal_95_percent_intervals_cover_about_that_often() -> None:
    # Of 300 sets, 0.95 has a standard error of 0.013; percentiles of 200 groups lose a little.
    assert 0.91 <= covered(BRIER, grouped, n=300, name="brier") <= 0.985
    assert 0.91 <= covered(auroc_by_integral(), grouped, n=300, name="auroc") <= 0.985


def test_images_drawn_one_by_one_give_intervals_that_are_too_narrow() -> None:
    # Four images that are one: intervals half as wide as they should be hold it 67 in 100 times.
    assert covered(BRIER, ungrouped, n=100, name="brier") < 0.8


# Pairs


def test_a_table_against_itself_differs_by_nothing() -> None:
    table = MetricTable(*drawn(40), positive=1)
    (found,) = paired_differences(table, {"itself": table}, np.arange(40), replicates=100)
    assert found.against == "itself"
    assert {(e.value, e.low, e.high) for e in found.metrics.values()} == {(0, 0, 0)}


def test_a_pair_shares_its_replicates() -> None:
    probs, labels = drawn(80)
    worse = two_columns(probs[:, 1] * 0.9 + 0.05)
    table, other = (MetricTable(p, labels, positive=1) for p in (probs, worse))
    (found,) = paired_differences(table, {"worse": other}, np.arange(80), replicates=400)
    difference = found.metrics["nll"]
    alone = bootstrap({"a": table, "b": other}, np.arange(80), replicates=400)
    assert difference.value == pytest.approx(table.once()["nll"] - other.once()["nll"])
    assert difference.low is not None
    assert difference.high is not None
    a = alone["a"]["nll"]
    assert a.low is not None
    assert a.high is not None
    # Nearly the same probabilities: most of what varies is common to both and cancels.
    assert difference.high - difference.low < 0.3 * (a.high - a.low)
    assert found.metrics["auroc"].high == pytest.approx(0, abs=1e-12)


def test_only_shared_metrics_are_compared() -> None:
    probs, labels = drawn(30)
    table = MetricTable(probs, labels, positive=1, only=("nll", "brier"))
    other = MetricTable(probs, labels, positive=1, only=("brier", "ece"))
    (found,) = paired_differences(table, {"b": other}, np.arange(30), replicates=20)
    assert list(found.metrics) == ["brier"]
