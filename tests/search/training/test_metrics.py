"""The metrics agree with scikit-learn."""

import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn import metrics as sk

from search.config import PolicyConfig
from search.training import metrics
from search.training.metrics import evaluate_probs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LABELS = np.array([0, 0, 1, 1])
PROBS = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])
THREE = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
THREE_LABELS = np.array([0, 1, 1, 2])


@st.composite
def classified(draw: st.DrawFn) -> tuple[Floats, Ints]:
    """Probabilities with many ties, and labels of which every class has one."""
    n_classes = draw(st.integers(2, 4))
    n = draw(st.integers(n_classes, 25))
    weights = draw(hnp.arrays(np.int64, (n, n_classes), elements=st.integers(1, 4)))
    labels = draw(hnp.arrays(np.int64, n, elements=st.integers(0, n_classes - 1)))
    labels[:n_classes] = np.arange(n_classes)
    return weights / weights.sum(axis=1, keepdims=True), labels


POLICIES = st.one_of(
    st.integers(0, 100).map(lambda percent: PolicyConfig(sensitivity=percent / 100)),
    st.sampled_from([0.1, 0.3, 0.5, 1, 3, 10, 1e12]).map(lambda r: PolicyConfig(cost_ratio=r)),
)


def same(one: dict[str, float], other: dict[str, float]) -> bool:
    return one == pytest.approx(other, abs=1e-12, nan_ok=True)


# Against handmade numbers


def test_the_metrics_of_four_images_are_those_worked_out_by_hand() -> None:
    found = evaluate_probs(PROBS, LABELS, positive=1, policy=PolicyConfig(sensitivity=1.0))
    assert found == pytest.approx(
        {
            "nll": -(math.log(0.9) + math.log(0.4) + math.log(0.7) + math.log(0.2)) / 4,
            "brier": 2 * (0.01 + 0.36 + 0.09 + 0.64) / 4,
            "auroc": 0.75,
            "auprc": (1 + 2 / 3) / 2,
            "partial_auroc": 0.1,  # the curve runs (0, 0), (0, .5), (.5, .5), (.5, 1), (1, 1)
            "accuracy": 0.5,
            "balanced_accuracy": 0.5,
            "precision": 0.5,
            "sensitivity": 0.5,
            "specificity": 0.5,
            "f1": 0.5,
            "ece": (0.1 + 0.6 + 0.3 + 0.8) / 4,
            "threshold": 0.15,
            "sensitivity_at_threshold": 1.0,
            "specificity_at_threshold": 0.5,
            "cost_at_threshold": math.nan,
        },
        nan_ok=True,
    )
    assert all(type(value) is float for value in found.values())


def test_the_threshold_is_left_out_without_a_policy_or_a_positive_class() -> None:
    assert "threshold" not in evaluate_probs(PROBS, LABELS, positive=1)
    assert "threshold" not in evaluate_probs(PROBS, LABELS, policy=PolicyConfig(sensitivity=0.9))


def test_confusion_has_the_label_in_the_row() -> None:
    assert metrics.confusion(THREE, THREE_LABELS).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_the_report_has_one_row_per_class_against_the_rest() -> None:
    report = metrics.per_class_report(THREE, THREE_LABELS, ["a", "b", "c"])
    assert [(row["class"], row["n"]) for row in report] == [("a", 1), ("b", 2), ("c", 1)]
    assert report[1] == {
        "class": "b",
        "n": 2,
        "precision": 1.0,
        "sensitivity": 0.5,
        "specificity": 1.0,
        "f1": pytest.approx(2 / 3),
        "auroc": 1.0,
        "auprc": 1.0,
        "partial_auroc": pytest.approx(0.2),
    }
    for k, row in enumerate(report):
        alone = evaluate_probs(THREE, THREE_LABELS, positive=k)
        assert {name: alone[name] for name in row if name in alone} == {
            name: value for name, value in row.items() if name not in ("class", "n")
        }


def test_images_of_one_confidence_bin_may_balance_each_other() -> None:
    probs = np.tile([0.25, 0.75], (4, 1))
    assert metrics.ece(probs, np.array([1, 1, 1, 0])) == 0
    assert metrics.ece(probs, np.array([1, 1, 0, 0])) == pytest.approx(0.25)


def test_the_bins_are_a_fifteenth_wide_and_open_below() -> None:
    def two(low: float, high: float) -> float:
        probs = np.array([[1 - low, low], [1 - high, high]])
        return metrics.ece(probs, np.array([1, 0]), positive=1)

    assert two(8.5 / 15, 9 / 15) == pytest.approx(abs(17.5 / 15 - 1) / 2)  # one bin
    assert two(8.5 / 15, 9.1 / 15) == pytest.approx((6.5 / 15 + 9.1 / 15) / 2)  # two bins


def test_ece_of_a_positive_is_about_its_own_probability() -> None:
    probs = np.array([[0.9, 0.1]] * 10)
    labels = np.array([1] + [0] * 9)
    assert metrics.ece(probs, labels, positive=1) == pytest.approx(0)
    assert metrics.ece(probs, labels) == pytest.approx(0)
    assert metrics.ece(probs, np.zeros(10, np.int64), positive=1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("scores", "area"),
    [
        ([0.1, 0.2, 0.3, 0.4], 0.2),  # every image of the class above all others
        ([0.4, 0.3, 0.2, 0.1], 0.0),
        ([0.5, 0.5, 0.5, 0.5], 0.02),  # a straight line from corner to corner
        ([0.1, 0.4, 0.4, 0.4], 0.11),  # it crosses 0.8 on its way from (0, 0) to (0.5, 1)
    ],
)
def test_partial_auroc_is_the_area_above_80_percent_sensitivity(
    scores: list[float], area: float
) -> None:
    probs = np.column_stack([1 - np.array(scores), scores])
    assert metrics.partial_auroc(probs, LABELS, positive=1) == pytest.approx(area, abs=1e-12)


def test_a_certain_and_wrong_answer_costs_a_finite_nll() -> None:
    assert metrics.nll(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-math.log(1e-7))
    assert metrics.nll(np.array([[1.0009, 0.0]]), np.array([0])) == 0


# Against scikit-learn


def official_partial_auroc(truth: NDArray[np.bool_], score: Floats) -> float:
    """The ISIC 2024 challenge's own formula: the classes change places, the area is undone."""
    widest = 0.2
    scaled = sk.roc_auc_score(~truth, 1 - score, max_fpr=widest)
    least = 0.5 * widest**2
    return float(least + (widest - least) / (1 - 0.5) * (scaled - 0.5))


@settings(deadline=None)
@given(classified(), st.data())
def test_partial_auroc_equals_that_of_the_isic_challenge(
    case: tuple[Floats, Ints], data: st.DataObject
) -> None:
    probs, labels = case
    k = data.draw(st.integers(0, probs.shape[1] - 1))
    each = [official_partial_auroc(labels == c, probs[:, c]) for c in range(probs.shape[1])]
    found = metrics.partial_auroc(probs, labels, positive=k)
    assert found == pytest.approx(each[k], abs=1e-12)
    assert -1e-12 <= found <= 0.2 + 1e-12
    assert evaluate_probs(probs, labels, positive=k)["partial_auroc"] == found
    assert metrics.partial_auroc(probs, labels) == pytest.approx(np.mean(each), abs=1e-12)


@settings(deadline=None)
@given(classified())
def test_whole_set_metrics_equal_those_of_scikit_learn(case: tuple[Floats, Ints]) -> None:
    probs, labels = case
    classes, decided = range(probs.shape[1]), probs.argmax(axis=1)
    each = [(labels == k, probs[:, k]) for k in classes]
    seen = {"y_true": labels, "y_pred": decided, "average": "macro", "zero_division": np.nan}
    expected = {
        "nll": sk.log_loss(labels, probs, labels=list(classes)),
        "brier": sk.brier_score_loss(labels, probs, labels=list(classes), scale_by_half=False),
        "auroc": np.mean([sk.roc_auc_score(*pair) for pair in each]),
        "auprc": np.mean([sk.average_precision_score(*pair) for pair in each]),
        "accuracy": sk.accuracy_score(labels, decided),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, decided),
        "precision": sk.precision_score(**seen),
        "sensitivity": sk.recall_score(**seen),
        "f1": sk.f1_score(**seen),
    }
    found = evaluate_probs(probs, labels)
    assert same({name: found[name] for name in expected}, expected)
    expected_matrix = sk.confusion_matrix(labels, decided, labels=list(classes))
    assert metrics.confusion(probs, labels).tolist() == expected_matrix.tolist()


@settings(deadline=None)
@given(classified(), st.data())
def test_metrics_of_a_positive_equal_those_of_scikit_learn(
    case: tuple[Floats, Ints], data: st.DataObject
) -> None:
    probs, labels = case
    k = data.draw(st.integers(0, probs.shape[1] - 1))
    truth, decided = labels == k, probs.argmax(axis=1) == k
    expected = {
        "auroc": sk.roc_auc_score(truth, probs[:, k]),
        "auprc": sk.average_precision_score(truth, probs[:, k]),
        "precision": sk.precision_score(truth, decided, zero_division=np.nan),
        "sensitivity": sk.recall_score(truth, decided),
        "specificity": sk.recall_score(~truth, ~decided),
        "f1": sk.f1_score(truth, decided),
    }
    found = evaluate_probs(probs, labels, positive=k)
    assert same({name: found[name] for name in expected}, expected)


@given(classified(), st.randoms(use_true_random=False), POLICIES)
def test_the_order_of_the_images_does_not_matter(
    case: tuple[Floats, Ints], random: Random, policy: PolicyConfig
) -> None:
    probs, labels = case
    order = list(range(len(labels)))
    random.shuffle(order)
    before = evaluate_probs(probs, labels, positive=1, policy=policy)
    assert same(evaluate_probs(probs[order], labels[order], positive=1, policy=policy), before)


@given(classified())
def test_single_precision_probabilities_change_little(case: tuple[Floats, Ints]) -> None:
    probs, labels = case
    found = metrics.nll(probs.astype(np.float32), labels)
    assert found == pytest.approx(metrics.nll(probs, labels), abs=1e-5)


# Where nothing can be counted


def test_metrics_of_one_class_alone_are_nan() -> None:
    found = evaluate_probs(
        PROBS, np.zeros(4, np.int64), positive=1, policy=PolicyConfig(sensitivity=0.95)
    )
    undefined = {name for name, value in found.items() if math.isnan(value)}
    assert undefined == {
        "auroc",
        "auprc",
        "partial_auroc",
        "sensitivity",
        "balanced_accuracy",
        "threshold",
        "sensitivity_at_threshold",
        "specificity_at_threshold",
        "cost_at_threshold",
    }
    assert math.isnan(evaluate_probs(PROBS, np.ones(4, np.int64), positive=1)["specificity"])
    assert math.isnan(metrics.auprc(PROBS, np.ones(4, np.int64), positive=1))
    assert math.isnan(metrics.auroc(PROBS, np.zeros(4, np.int64)))


def test_precision_of_a_class_that_is_never_decided_is_nan() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.2]])
    found = evaluate_probs(probs, np.array([0, 1]), positive=1)
    assert math.isnan(found["precision"])
    assert found["f1"] == 0


def test_a_macro_average_leaves_out_the_classes_it_is_undefined_for() -> None:
    probs = np.column_stack([PROBS * 0.9, np.full(4, 0.1)])
    found = evaluate_probs(probs, LABELS)
    assert found["auroc"] == pytest.approx(0.75)
    assert found["balanced_accuracy"] == found["sensitivity"] == 0.5


# What is refused


@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (np.empty((0, 2)), np.empty(0, np.int64), r"n_images >= 1.*\(0, 2\)"),
        (np.array([0.2, 0.8]), np.array([0, 1]), r"n_classes >= 2\), the shape is \(2,\)"),
        (np.ones((4, 1)), LABELS, r"n_classes >= 2\), the shape is \(4, 1\)"),
        (PROBS, LABELS[:3], r"labels must be 4 integers, they are int64 \(3,\)"),
        (PROBS, LABELS.astype(float), "labels must be 4 integers, they are float64"),
        (PROBS, LABELS + 1, "labels must be 0 to 1, they are 1 to 2"),
        (PROBS, LABELS - 1, "labels must be 0 to 1, they are -1 to 0"),
        (PROBS * np.nan, LABELS, "finite and not negative"),
        (np.tile([-1.0, 2.0], (4, 1)), LABELS, "finite and not negative; are these logits"),
        (PROBS * 1.002, LABELS, "sum to 1 within 0.001; one is 0.002 off"),
    ],
)
def test_what_are_no_probabilities_or_labels_is_refused(
    probs: Floats, labels: Ints, message: str
) -> None:
    for function in (evaluate_probs, metrics.confusion, metrics.nll, metrics.brier, metrics.ece):
        with pytest.raises(ValueError, match=message):
            function(probs, labels)


def test_rows_that_sum_to_1_but_for_rounding_are_taken() -> None:
    assert metrics.nll(PROBS * 1.0009, LABELS) > 0


@pytest.mark.parametrize("positive", [-1, 2])
def test_a_positive_class_that_is_not_there_is_refused(positive: int) -> None:
    with pytest.raises(ValueError, match=f"positive must be 0 to 1, it is {positive}"):
        evaluate_probs(PROBS, LABELS, positive=positive)


def test_a_report_needs_a_name_for_every_class() -> None:
    with pytest.raises(ValueError, match="probs has 2 classes, but 1 names are given"):
        metrics.per_class_report(PROBS, LABELS, ["benign"])
