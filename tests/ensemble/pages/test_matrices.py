"""Counted decisions as coloured cells."""

import numpy as np

from ensemble.pages.matrices import CELLS, confusion_figure, decision_figure

CLASSES = ["benign", "malignant"]
EVIL = "</script><b>&amp;"


def test_confusion_cells_say_count_and_share_of_the_row() -> None:
    figure = confusion_figure(np.array([[3, 1], [0, 0]]), CLASSES)
    texts = [note.text for note in figure.layout.annotations]
    assert texts == ["3<br>75%", "1<br>25%", "0<br>0%", "0<br>0%"]


def test_a_large_confusion_has_no_numbers_in_its_cells() -> None:
    n = CELLS + 1
    figure = confusion_figure(np.eye(n, dtype=np.int64), [f"c{k}" for k in range(n)])
    assert not figure.layout.annotations


def test_a_point_that_refers_none_has_no_column_for_it() -> None:
    counts = np.array([[5, 0, 2], [1, 0, 3]])
    plain = decision_figure(counts, CLASSES, refers=False)
    assert plain.layout.xaxis.ticktext == ("negative", "positive")
    assert [note.text for note in plain.layout.annotations][:2] == ["5<br>71%", "2<br>29%"]
    assert len(decision_figure(counts, CLASSES, refers=True).layout.annotations) == 6


def test_names_are_shown_and_never_markup() -> None:
    figure = confusion_figure(np.eye(2, dtype=np.int64), [EVIL, "b"])
    assert figure.layout.xaxis.ticktext[0] == "&lt;/script&gt;&lt;b&gt;&amp;amp;"
    assert figure.data[0].customdata[0][0][0] == figure.layout.yaxis.ticktext[0]
