"""Where marks of a forest plot stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.pages.forest import Forest, Row, forest, written
from tests.ensemble.pages.stories import est


def at(plot: Forest, k: int) -> tuple[float | None, float | None, float | None]:
    mark = plot.marks[k]
    return mark.low, mark.at, mark.high


def test_marks_keep_their_distances() -> None:
    rows = [Row("a", est(0.2, 0.1, 0.3)), Row("b", est(0.4, 0.3, 0.5))]
    plot = forest("x", rows)
    low, middle, high = at(plot, 0)
    assert low is not None
    assert middle is not None
    assert high is not None
    assert high - middle == pytest.approx(middle - low, abs=0.02)
    assert at(plot, 1)[0] == high


def test_the_zero_line_is_on_the_axis_though_no_interval_reaches_it() -> None:
    plot = forest("x", [Row("a", est(-0.3, -0.4, -0.2))], reference=0)
    assert plot.reference is not None
    assert 50 < plot.reference < 100
    assert "0.0" in [text for _, text in plot.ticks]


def test_a_rate_has_no_axis_beyond_one() -> None:
    plot = forest("x", [Row("a", est(0.99, 0.8, 1.0))], bounds=(0, 1))
    assert max(float(text) for _, text in plot.ticks) == 1.0
    assert (at(plot, 0)[2] or 0) > 90


def test_an_endless_interval_does_not_flatten_the_rest() -> None:
    rows = [Row("a", est(0.1, 0.05, 0.15)), Row("b", est(0.2, -99, 99))]
    low, _, high = at(forest("x", rows), 0)
    assert (high or 0) - (low or 0) > 10
    assert at(forest("x", rows), 1)[0::2] == (0, 100)


def test_what_is_undefined_has_no_mark() -> None:
    plot = forest("x", [Row("a", est(0.5, 0.4, 0.6)), Row("b", est(None))])
    assert at(plot, 1) == (None, None, None)
    assert plot.marks[1].text == "–"


def test_equal_values_without_intervals_have_an_axis() -> None:
    plot = forest("x", [Row("a", est(0.5)), Row("b", est(0.5))])
    low, middle, high = at(plot, 0)
    assert (low, high) == (None, None)
    assert middle == pytest.approx(50, abs=1)


def test_differences_are_written_with_their_sign() -> None:
    assert written(est(0.1, -0.05, 0.2), signed=True) == "+0.100 (-0.050 to +0.200)"
    assert written(est(0.1, 0.05, 0.2)) == "0.100 (0.050 to 0.200)"
    assert written(est(0.1)) == "0.100"


@given(
    st.lists(st.tuples(st.floats(-10, 10), st.floats(0, 5)), min_size=1, max_size=8),
    st.sampled_from([None, 0.0]),
)
def test_every_mark_lies_on_the_axis_in_order(
    given_rows: list[tuple[float, float]], reference: float | None
) -> None:
    rows = [Row("a", est(v, v - wide, v + wide)) for v, wide in given_rows]
    plot = forest("x", rows, reference=reference)
    for mark in plot.marks:
        assert mark.low is not None
        assert mark.at is not None
        assert mark.high is not None
        assert 0 <= mark.low <= mark.at <= mark.high <= 100
    assert all(0 <= place <= 100 for place, _ in plot.ticks)
    assert len(plot.ticks) <= 8
