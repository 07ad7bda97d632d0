"""Figures against scikit-learn, counted bins and names that try to be markup."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import auc, average_precision_score, roc_auc_score, roc_curve

from ensemble import figures
from search.training.metrics import confusion, ece

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
    _, line = figures.roc_figure(probs, labels, CLASSES, positive=1).data
    assert auc(line.x, line.y) == pytest.approx(roc_auc_score(labels, probs[:, 1]), abs=1e-3)


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
    line, prevalence = figures.precision_recall_figure(probs, labels, CLASSES, positive=1).data
    expected = average_precision_score(labels, probs[:, 1])
    assert np.trapezoid(line.y, line.x) == pytest.approx(expected, abs=1e-3)
    assert list(prevalence.y) == [0.2, 0.2]


def test_ten_thousand_images_make_small_figures() -> None:
    probs, labels = drawn_scores(10_000)
    made = [
        figures.roc_figure(probs, labels, CLASSES, positive=1),
        figures.precision_recall_figure(probs, labels, CLASSES, positive=1),
        figures.reliability_figure(probs, labels, positive=1),
        figures.score_figure(probs, labels, CLASSES, positive=1),
    ]
    assert all(len(line.x) <= figures.POINTS for figure in made for line in figure.data)
    assert all(len(figure.to_json()) < 25_000 for figure in made)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=400), st.integers(2, 60))
def test_a_thinned_line_keeps_its_ends_and_its_tall_steps(heights: list[float], limit: int) -> None:
    y = np.array(heights)
    x = np.linspace(0, 1, len(y))
    thin_x, thin_y = figures.thin(x, y, limit)
    assert len(thin_x) <= limit
    assert (thin_x[0], thin_x[-1], thin_y[0], thin_y[-1]) == (0, 1, y[0], y[-1])
    steps = np.abs(np.diff(y)) + np.diff(x)
    tall = x[1:][steps > 1.001 * steps.sum() / (limit - 1)]
    assert np.isin(tall, thin_x).all()


def test_operating_points_sit_where_they_do_what_they_say() -> None:
    probs, labels = drawn_scores(50)
    points = [
        {"name": "screen", "threshold": 0.3, "sensitivity": 0.9, "specificity": 0.6},
        {"name": "nobody", "threshold": 0.5, "sensitivity": None, "specificity": 0.7},
    ]
    marks = figures.roc_figure(probs, labels, CLASSES, positive=1, points=points).data[2:]
    assert [(mark.name, mark.x[0], mark.y[0]) for mark in marks] == [("screen", 0.4, 0.9)]
    lines = figures.score_figure(probs, labels, CLASSES, positive=1, points=points).data[2:]
    assert [line.x[0] for line in lines] == [0.3, 0.5]


def test_without_a_positive_every_class_has_its_line() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    probs = np.eye(4)[labels]
    figure = figures.roc_figure(probs, labels, ["a", "b", "c", "none of it"])
    assert [line.name for line in figure.data[1:]] == ["a 1.000", "b 1.000", "c 1.000"]
    looks = {(figures._line(k)["color"], figures._line(k)["dash"]) for k in range(figures.LINES)}
    assert len(looks) == figures.LINES


def test_the_bins_of_the_reliability_figure_add_up_to_the_ece() -> None:
    probs, labels = drawn_scores(200)
    _, line, bars = figures.reliability_figure(probs, labels, positive=1).data
    shares = np.asarray(line.customdata) / len(labels)
    expected = ece(probs, labels, positive=1)
    assert np.sum(shares * np.abs(np.asarray(line.y) - line.x)) == pytest.approx(expected)
    assert np.sum(bars.y) == len(labels)
    assert len(bars.y) == 15


def test_intervals_of_the_reliability_figure_hold_their_shares() -> None:
    probs, labels = drawn_scores(200)
    line = figures.reliability_figure(probs, labels).data[1]
    low = np.asarray(line.y) - line.error_y.arrayminus
    high = np.asarray(line.y) + line.error_y.array
    assert (low >= 0).all()
    assert (high <= 1).all()
    assert (high > low).all()


def test_confusion_cells_say_count_and_share_of_the_row() -> None:
    figure = figures.confusion_figure(np.array([[3, 1], [0, 0]]), CLASSES)
    texts = [note.text for note in figure.layout.annotations]
    assert texts == ["3<br>75%", "1<br>25%", "0<br>0%", "0<br>0%"]


def test_a_large_confusion_has_no_numbers_in_its_cells() -> None:
    n = figures.CELLS + 1
    figure = figures.confusion_figure(np.eye(n, dtype=np.int64), [f"c{k}" for k in range(n)])
    assert not figure.layout.annotations


def test_histograms_are_shares_of_each_kind() -> None:
    probs, labels = drawn_scores(500)
    for line in figures.score_figure(probs, labels, CLASSES, positive=1).data:
        assert np.sum(line.y[:-1]) == pytest.approx(1)


def test_right_and_wrong_answers_are_told_apart_without_a_positive() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    figure = figures.score_figure(probs, np.array([0, 0, 1]), CLASSES)
    assert [line.name for line in figure.data] == ["wrong (1)", "right (2)"]


def test_members_have_lines_of_their_own_and_other_trials_share_one() -> None:
    figure = figures.training_figure(
        [("best", [0.5, None, 0.3])], [("x", [0.9]), ("y", [0.8, 0.7])]
    )
    others, member = figure.data
    assert others.y == (0.9, None, 0.8, 0.7, None)
    assert others.text[2] == "y"
    assert member.y == (0.5, None, 0.3)
    assert member.line.width > others.line.width


def test_a_diverging_trial_does_not_flatten_the_others() -> None:
    figure = figures.training_figure([("best", [0.5, 0.4])], [("lost", [0.6, 40.0])])
    assert figure.layout.yaxis.range[1] < 2


def test_names_are_shown_and_never_markup() -> None:
    probs, labels = drawn_scores(50)
    names = [EVIL, "b"]
    for figure in (
        figures.roc_figure(probs, labels, names),
        figures.precision_recall_figure(probs, labels, names),
        figures.score_figure(probs, labels, names, positive=0),
        figures.confusion_figure(confusion(probs, labels), names),
        figures.training_figure([(EVIL, [1.0])], [(EVIL, [1.0])]),
    ):
        text = figure.to_json()
        assert "<" not in text
        assert "&lt;\\u002fscript&gt;&lt;b&gt;&amp;amp;" in text
