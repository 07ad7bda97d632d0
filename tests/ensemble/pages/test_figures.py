"""Figures against scikit-learn, counted bins and names that try to be markup."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve

from ensemble.evaluation.results import Estimate
from ensemble.pages import figures
from ensemble.pages.drawing import POINTS, line, thin
from search.training.metrics import ece
from tests.ensemble.pages.stories import operating_point, result_of

EVIL = "</script><b>&amp;"
CLASSES = ["benign", "malignant"]


def drawn_scores(n: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Two classes that overlap: probs (n, 2) and labels (n,), a fifth of them positive."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 5 == 0).astype(np.int64)
    score = 1 / (1 + np.exp(-rng.normal(2 * labels - 1, 1.2)))
    return np.stack([1 - score, score], axis=1), labels


@pytest.mark.parametrize("n", [25, 300, 10_000])
def test_the_plotted_roc_has_the_area_of_the_metric(n: int) -> None:
    probs, labels = drawn_scores(n)
    _, curve = figures.roc_figure(probs, labels, CLASSES, positive=1).data
    assert auc(curve.x, curve.y) == pytest.approx(roc_auc_score(labels, probs[:, 1]), abs=1e-3)


def test_a_short_roc_has_scikit_learns_points() -> None:
    probs, labels = drawn_scores(60)
    x, y = figures.roc_curve(probs[:, 1], labels == 1)
    fpr, tpr, _ = roc_curve(labels, probs[:, 1], drop_intermediate=False)
    np.testing.assert_allclose([x, y], [fpr, tpr])


def test_tied_scores_make_one_slanted_step() -> None:
    x, y = figures.roc_curve(np.full(4, 0.5), np.array([True, False, True, False]))
    assert (x.tolist(), y.tolist()) == ([0, 1], [0, 1])


@pytest.mark.parametrize("n", [25, 300, 10_000])
def test_the_area_below_the_precision_is_the_average_precision(n: int) -> None:
    probs, labels = drawn_scores(n)
    curve, prevalence = figures.precision_recall_figure(probs, labels, CLASSES, positive=1).data
    expected = average_precision_score(labels, probs[:, 1])
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(expected, abs=1e-3)
    assert list(prevalence.y) == [0.2, 0.2]


def test_ten_thousand_images_make_small_figures() -> None:
    probs, labels = drawn_scores(10_000)
    made = [
        figures.roc_figure(probs, labels, CLASSES, positive=1),
        figures.precision_recall_figure(probs, labels, CLASSES, positive=1),
        figures.reliability_figure(probs, labels, positive=1),
        figures.score_figure(probs, labels, CLASSES, positive=1),
    ]
    assert all(len(drawn.x) <= POINTS for figure in made for drawn in figure.data)
    assert all(len(figure.to_json()) < 25_000 for figure in made)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=400), st.integers(2, 60))
def test_a_thinned_line_keeps_its_ends_and_its_tall_steps(heights: list[float], limit: int) -> None:
    y = np.array(heights)
    x = np.linspace(0, 1, len(y))
    thin_x, thin_y = thin(x, y, limit)
    assert len(thin_x) <= limit
    assert (thin_x[0], thin_x[-1], thin_y[0], thin_y[-1]) == (0, 1, y[0], y[-1])
    steps = np.abs(np.diff(y)) + np.diff(x)
    tall = x[1:][steps > 1.001 * steps.sum() / (limit - 1)]
    assert np.isin(tall, thin_x).all()


def test_operating_points_sit_where_they_do_what_they_say() -> None:
    probs, labels = drawn_scores(50)
    points = [
        result_of(operating_point("screen", 0.15)),
        result_of(operating_point("b", 0.85, 0.3)),
    ]
    undefined = points[1].model_copy(update={"sensitivity": Estimate(value=None)})
    figure = figures.roc_figure(probs, labels, CLASSES, positive=1, points=[points[0], undefined])
    assert [(mark.name, mark.x[0], mark.y[0]) for mark in figure.data[2:]] == [
        ("screen", 0.25, 0.96)
    ]
    lines = figures.score_figure(probs, labels, CLASSES, positive=1, points=points).data[2:]
    assert [[x for x in drawn.x if x is not None] for drawn in lines] == [
        [0.15, 0.15],
        [0.3, 0.3, 0.85, 0.85],
    ]


def test_without_a_positive_every_class_has_its_line() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    probs = np.eye(4)[labels]
    figure = figures.roc_figure(probs, labels, ["a", "b", "c", "none of it"])
    assert [drawn.name for drawn in figure.data[1:]] == ["a 1.000", "b 1.000", "c 1.000"]
    looks = {(line(k)["color"], line(k)["dash"]) for k in range(figures.LINES)}
    assert len(looks) == figures.LINES


def test_the_bins_of_the_reliability_figure_add_up_to_the_ece() -> None:
    probs, labels = drawn_scores(200)
    _, bins, bars = figures.reliability_figure(probs, labels, positive=1).data
    shares = np.asarray(bins.customdata) / len(labels)
    expected = ece(probs, labels, positive=1)
    assert np.sum(shares * np.abs(np.asarray(bins.y) - bins.x)) == pytest.approx(expected)
    assert np.sum(bars.y) == len(labels)
    assert len(bars.y) == 15


def test_intervals_of_the_reliability_figure_hold_their_shares() -> None:
    probs, labels = drawn_scores(200)
    bins = figures.reliability_figure(probs, labels).data[1]
    low = np.asarray(bins.y) - bins.error_y.arrayminus
    high = np.asarray(bins.y) + bins.error_y.array
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (high > low).all()


def test_histograms_are_shares_of_each_kind() -> None:
    probs, labels = drawn_scores(500)
    for kind in figures.score_figure(probs, labels, CLASSES, positive=1).data:
        assert np.sum(kind.y[:-1]) == pytest.approx(1)


def test_right_and_wrong_answers_are_told_apart_without_a_positive() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    figure = figures.score_figure(probs, np.array([0, 0, 1]), CLASSES)
    assert [kind.name for kind in figure.data] == ["wrong (1)", "right (2)"]


def test_names_are_shown_and_never_markup() -> None:
    probs, labels = drawn_scores(50)
    names = [EVIL, "b"]
    for figure in (
        figures.roc_figure(probs, labels, names),
        figures.precision_recall_figure(probs, labels, names),
        figures.score_figure(probs, labels, names, positive=0),
    ):
        text = figure.to_json()
        assert "<" not in text
        assert "&lt;\\u002fscript&gt;&lt;b&gt;&amp;amp;" in text
