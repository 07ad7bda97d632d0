"""Numbers and names as the pages print them, and the parts that all figures share."""

import math

import numpy as np
from plotly.subplots import make_subplots

from search.report.canvas import (
    GREY,
    NAME,
    blank,
    chart,
    duration,
    label,
    number,
    percent,
    plural,
    short,
    spans,
    words,
)

EVIL = "<b>|*x*"


def test_names_are_cut_and_escaped() -> None:
    assert short("x" * (NAME + 1)) == "x" * (NAME - 1) + "…"
    assert short("x" * NAME) == "x" * NAME
    assert short(EVIL) == "&lt;b&gt;|*x*"


def test_numbers_are_printed_for_reading() -> None:
    given = (0.12349, 1234.5, 12_345, np.int64(7), math.nan, None)
    assert [number(value) for value in given] == ["0.123", "1,234.500", "12,345", "7", "–", "–"]
    shares = (0, 0.0042, 0.8, 1, math.inf, None)
    assert [percent(value) for value in shares] == ["0%", "0.4%", "80%", "100%", "–", "–"]


def test_times_counts_and_metrics_are_told_in_words() -> None:
    assert [duration(v) for v in (9.84, 600, 9000)] == ["9.8 s", "10.0 min", "2.5 h"]
    assert [plural(n, "trial") for n in (1, 1200)] == ["1 trial", "1,200 trials"]
    assert [label("auroc"), words("auroc"), words("nll")] == ["AUROC", "AUROC", "log loss"]
    assert label("balanced_accuracy") == "Balanced accuracy"


def test_values_of_many_decades_ask_for_a_logarithmic_axis() -> None:
    assert [spans([1, 200]), spans([1, 50]), spans([0, 50]), spans([])] == [True, *[False] * 3]


def test_panes_keep_their_axes_and_take_the_pages_look() -> None:
    figure = blank("x", "y", panes=make_subplots(rows=2), showlegend=False)
    assert figure.layout.yaxis2.domain is not None
    assert figure.layout.template.layout.font.color == GREY
    assert (figure.layout.xaxis.title.text, figure.layout.showlegend) == ("x", False)


def test_a_chart_holds_its_figure_as_json_without_markup() -> None:
    made = chart("key", "name", blank("</script>", "y"), 300, 200, caption="What it shows.")
    assert (made.height, made.width, made.caption) == (300, 200, "What it shows.")
    assert "<" not in made.figure
