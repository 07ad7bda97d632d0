"""One prepared table gives the metrics of the shared functions, whatever the weights."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn import metrics as sk

from ensemble.evaluation.table import MetricTable
from search.config import PolicyConfig
from search.training.metrics import evaluate_probs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LABELS = np.array([0, 0, 1, 1])
PROBS = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])


@st.composite
def classified(draw: st.DrawFn) -> tuple[Floats, Ints, int | None]:
    """Probabilities with many ties, labels that may leave classes out, a positive class or none."""
    n_classes = draw(st.integers(2, 4))
    n = draw(st.integers(1, 25))
    weights = draw(hnp.arrays(np.int64, (n, n_classes), elements=st.integers(1, 4)))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, n_classes - 1)))
    positive = draw(st.none() | st.integers(0, n_classes - 1))
    return weights / weights.sum(axis=1, keepdims=True), labels, positive


def simulated(n: int, n_classes: int) -> tuple[Floats, Ints]:
    rng = np.random.default_rng(n)
    labels = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    probs = np.exp(logits)
    return probs / probs.sum(axis=1, keepdims=True), labels


def near(one: dict[str, float], other: dict[str, float], tolerance: float = 1e-9) -> bool:
    return one == pytest.approx(other, abs=tolerance, nan_ok=True)


# With each image counted once


@settings(deadline=None)
@given(classified())
def test_each_image_once_gives_what_evaluate_probs_gives(
    case: tuple[Floats, Ints, int | None],
) -> None:
    probs, labels, positive = case
    expected = evaluate_probs(probs, labels, positive=positive)
    found = MetricTable(probs, labels, positive=positive).once()
    assert near({name: found[name] for name in expected}, expected)


@pytest.mark.parametrize(("n_classes", "positive"), [(2, 1), (2, None), (9, None), (9, 4)])
def test_many_images_without_ties_give_what_evaluate_probs_gives(
    n_classes: int, positive: int | None
) -> None:
    probs, labels = simulated(700, n_classes)
    expected = evaluate_probs(probs, labels, positive=positive)
    found = MetricTable(probs, labels, positive=positive).once()
    assert near({name: found[name] for name in expected}, expected)


def test_curves_and_rates_are_those_of_scikit_learn_with_weights() -> None:
    probs, labels = simulated(300, 2)
    weights = np.random.default_rng(1).integers(0, 4, 300)
    score, decided = probs[:, 1], probs.argmax(axis=1)
    found = MetricTable(probs, labels, positive=1).values(weights)
    given_weights = {"sample_weight": weights}
    expected = {
        "auroc": sk.roc_auc_score(labels, score, **given_weights),
        "auprc": sk.average_precision_score(labels, score, **given_weights),
        "nll": sk.log_loss(labels, probs, **given_weights),
        "brier": 2 * sk.brier_score_loss(labels, score, **given_weights),
        "accuracy": sk.accuracy_score(labels, decided, **given_weights),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, decided, **given_weights),
        "precision": sk.precision_score(labels, decided, **given_weights),
        "sensitivity": sk.recall_score(labels, decided, **given_weights),
        "f1": sk.f1_score(labels, decided, **given_weights),
    }
    assert near({name: float(found[name]) for name in expected}, expected)


@settings(deadline=None)
@given(classified())
def test_specificity_at_95_is_that_of_the_exact_scan(
    case: tuple[Floats, Ints, int | None],
) -> None:
    probs, labels, positive = case[0], case[1], case[2] or 0
    policy = PolicyConfig(sensitivity=0.95)
    scanned = evaluate_probs(probs, labels, positive=positive, policy=policy)
    found = MetricTable(probs, labels, positive=positive).once()["specificity_at_95"]
    assert found == pytest.approx(scanned["specificity_at_threshold"], abs=1e-12, nan_ok=True)


def test_one_miss_in_twenty_positives_reaches_95_percent() -> None:
    score = np.concatenate([[0.1], np.full(19, 0.8), [0.3, 0.9]])
    labels = np.array([1] * 20 + [0, 0])
    found = MetricTable(np.stack([1 - score, score], axis=1), labels, positive=1).once()
    assert found["specificity_at_95"] == 0.5


def test_a_score_at_the_threshold_is_called_positive() -> None:
    table = MetricTable(PROBS, LABELS, positive=1, threshold=0.6)
    found = table.once()
    assert found["sensitivity_at_threshold"] == 0.5
    assert found["specificity_at_threshold"] == 0.5
    found = MetricTable(PROBS, LABELS, positive=1, threshold=0.61).once()
    assert found["specificity_at_threshold"] == 1.0


# With weights


@settings(deadline=None)
@given(classified(), st.data())
def test_counting_an_image_twice_is_having_it_twice(
    case: tuple[Floats, Ints, int | None], data: st.DataObject
) -> None:
    probs, labels, positive = case
    options = st.integers(0, 3)
    counts = data.draw(hnp.arrays(np.int64, len(labels), elements=options))
    counts[0] += counts.sum() == 0
    threshold = None if positive is None else 0.5
    weighted = MetricTable(probs, labels, positive=positive, threshold=threshold).values(counts)
    rows = np.repeat(np.arange(len(labels)), counts)
    repeated = MetricTable(probs[rows], labels[rows], positive=positive, threshold=threshold)
    iterated = ("calibration_slope", "calibration_intercept", "smooth_ece")
    found = {name: float(value) for name, value in weighted.items()}
    expected = repeated.once()
    for name in iterated:  # to a step of 1e-6
        assert found.pop(name) == pytest.approx(expected.pop(name), abs=1e-5, nan_ok=True)
    assert near(found, expected)


def test_replicates_side_by_side_are_the_same_as_one_by_one() -> None:
    probs, labels = simulated(80, 3)
    counts = np.random.default_rng(0).integers(0, 3, (5, 80))
    table = MetricTable(probs, labels)
    together = table.values(counts)
    for row in range(5):
        alone = {name: float(value) for name, value in table.values(counts[row]).items()}
        assert near({name: float(values[row]) for name, values in together.items()}, alone)


def test_a_replicate_without_positives_is_undefined_where_it_must_be() -> None:
    counts = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    found = MetricTable(PROBS, LABELS, positive=1).values(counts)
    undefined = {name for name, values in found.items() if np.isnan(values[1])}
    assert {"auroc", "auprc", "partial_auroc", "sensitivity", "specificity_at_95"} <= undefined
    assert {"calibration_slope", "calibration_intercept", "balanced_accuracy"} <= undefined
    assert not undefined & {"nll", "brier", "accuracy", "ece", "smooth_ece", "aurc", "augrc"}


# What is asked for


def test_only_the_metrics_that_are_asked_for_are_there() -> None:
    table = MetricTable(PROBS, LABELS, positive=1, only=("auroc", "nll"))
    assert set(table.once()) == {"auroc", "nll"}


def test_without_a_positive_class_there_is_no_specificity_at_95() -> None:
    assert "specificity_at_95" not in MetricTable(PROBS, LABELS).once()
    assert not math.isnan(MetricTable(PROBS, LABELS, positive=1).once()["specificity_at_95"])


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no metric 'specificity_at_95' here; there are nll, "):
        MetricTable(PROBS, LABELS, only=("specificity_at_95",))


def test_a_threshold_without_a_positive_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the threshold 0\.5 needs a positive class"):
        MetricTable(PROBS, LABELS, threshold=0.5)


def test_logits_and_a_class_that_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"are these logits\?"):
        MetricTable(np.array([[2.0, -1.0]]), np.array([0]))
    with pytest.raises(ValueError, match=r"positive must be 0 to 1, it is 2"):
        MetricTable(PROBS, LABELS, positive=2)


def test_counts_of_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"counts must end in 4 images, it is \(2, 5\)"):
        MetricTable(PROBS, LABELS).values(np.ones((2, 5)))
