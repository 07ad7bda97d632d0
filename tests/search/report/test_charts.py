"""Figures of handmade trials: what is drawn, what is left out, what a name may hold."""

from typing import Any

import plotly.graph_objects as go
import pytest

from search.config import FidelityConfig
from search.report.canvas import frame
from search.report.charts import (
    POINTS,
    curves_figure,
    front_figure,
    history_figure,
    importance_figure,
    rungs_of,
)
from search.report.coordinates import columns_of, coordinates_figure
from search.report.leaderboard import ranked
from search.space import Space
from search.study.records import TrialRecord
from tests.search.report.studies import SPACE, epoch, every_kind, many_trials, trial

TRIALS = [record for record in every_kind() if record.fold == 0]
EVIL = "<b>|*x*"


def traces(figure: go.Figure) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def test_every_value_is_in_the_history_once_by_how_its_trial_ended() -> None:
    found = traces(history_figure(TRIALS, "nll"))
    assert list(found) == [
        *("complete (4)", "pruned (2)", "infeasible (1)", "failed (1)", "running (1)"),
        "best so far",
    ]
    assert list(found["complete (4)"].x) == [0, 1, 3, 9]
    assert list(found["complete (4)"].y) == [0.5, 0.4, 0.3, 0.55]


def test_the_best_so_far_goes_by_number_and_leaves_out_the_infeasible() -> None:
    best = traces(history_figure(TRIALS[::-1], "nll"))["best so far"]
    assert list(best.x) == [0, 1, 3, 10]
    assert list(best.y) == [0.5, 0.4, 0.3, 0.3]


def test_the_best_so_far_rises_where_more_is_better() -> None:
    records = [trial(i, [v], value=v) for i, v in enumerate([0.6, 0.5, 0.8])]
    assert list(traces(history_figure(records, "auroc"))["best so far"].y) == [0.6, 0.8, 0.8]


def test_a_study_without_any_value_has_an_empty_history() -> None:
    assert len(history_figure([trial(0, [], status="failed")], "nll").data) == 0


def test_one_diverged_trial_does_not_flatten_the_rest_and_the_best_is_never_cut() -> None:
    values = [0.3, 0.4, 0.5, 0.6, 40.0]
    low, high = frame(values, less=True) or (0, 0)
    assert low < 0.3
    assert high < 2
    low, high = frame([-v for v in values], less=False) or (0, 0)
    assert low > -2
    assert high > -0.3
    assert frame([0.5], less=True) == pytest.approx([0.475, 0.525])
    assert frame([0.0, 0.0], less=True) == [-1, 1]
    assert frame([], less=True) is None


def test_the_most_important_param_is_on_top() -> None:
    (bars,) = importance_figure({"lr": 0.7, EVIL: 0.3}).data
    assert list(bars.y) == ["&lt;b&gt;|*x*", "lr"]


def test_the_rungs_are_those_before_the_last_epoch() -> None:
    assert rungs_of(FidelityConfig(max_epochs=9, grace=1, reduction=3)) == [1, 3]
    assert rungs_of(FidelityConfig(max_epochs=10, grace=2, reduction=2)) == [2, 4, 8]
    assert rungs_of(FidelityConfig(max_epochs=2, grace=5, reduction=3)) == []


def test_curves_are_one_trace_a_status_with_gaps_and_the_best_stands_out() -> None:
    figure, drawn = curves_figure(TRIALS, "nll", [1, 3])
    found = traces(figure)
    assert drawn == 9
    assert list(found)[-1] == "best: trial 3"
    assert list(found["pruned (2)"].y) == [1.1, None, 1.2, None]
    assert list(found["pruned (2)"].customdata) == [8, 8, 2, 2]
    assert found["pruned (2)"].line.dash == "dash"
    assert found["complete (3)"].line.dash == "solid"
    assert found["pruned (2)"].opacity < found["complete (3)"].opacity
    assert [shape.x0 for shape in figure.layout.shapes] == [1, 3]


def test_an_undefined_value_is_a_gap() -> None:
    record = trial(0, [0.5], epochs=[epoch(0.5), {"nll": None}, epoch(0.6)])
    figure, _ = curves_figure([record], "nll", [])
    assert list(figure.data[0].y) == [0.5, None, 0.6, None]


def test_very_many_curves_are_cut_to_the_best() -> None:
    records = [trial(i, [1.0 - i / 1000] * 100) for i in range(300)]
    _, drawn = curves_figure(records, "nll", [])
    assert drawn == POINTS // 101


def test_a_front_of_two_is_joined_by_stairs_on_the_side_that_is_reached() -> None:
    records = ranked([trial(i, [v]) for i, v in enumerate([0.5, 0.4, 0.3])], "nll")
    figure = front_figure(records, ["nll", "params_m"], "params_m", "nll")
    others, front = figure.data
    assert (others.name, front.name) == ("other trials (0)", "front (3)")
    assert list(front.x) == [0.5, 1.5, 2.5]
    assert front.line.shape == "hv"
    assert "trial 2, resnet50<br>Log loss 0.3<br>Params in millions 2.5" in front.text
    back = front_figure(records, ["nll", "auroc"], "auroc", "nll").data[1]
    assert back.line.shape == "vh"


def test_a_front_of_three_is_not_joined() -> None:
    records = [trial(0, [0.5]), trial(1, [0.4])]
    front = front_figure(records, ["nll", "auroc", "params_m"], "auroc", "nll").data[1]
    assert front.mode == "markers"


def space(**more: Any) -> Space:
    return Space.model_validate(SPACE | more)


def test_coordinates_are_of_sampled_params_that_differ() -> None:
    columns = columns_of(TRIALS, space(dropout=0.1))
    assert list(columns) == ["backbone", "image_size", "lr"]
    fixed = [trial(0, [0.5]), trial(0, [0.4])]
    assert columns_of(fixed, space()) == {}


def test_a_param_that_does_not_apply_is_none() -> None:
    records = [
        trial(1, [0.5], params={"keep_statistics": True}),
        trial(4, [0.5]),
        trial(2, [0.5], params={"keep_statistics": True}),
    ]
    assert columns_of(records, space())["keep_statistics"] == [True, False, None]


def test_without_a_space_every_param_that_differs_is_an_axis() -> None:
    columns = columns_of([trial(0, [0.5]), trial(1, [0.5])], None)
    assert {*columns} == {"backbone", "image_size", "lr", "dropout"}


def axes(records: list[TrialRecord], objective: str = "nll") -> dict[str, Any]:
    values = [record.value or 0.0 for record in records]
    columns = columns_of(records, space())
    (lines,) = coordinates_figure(columns, values, objective, space()).data
    return {axis.label: axis for axis in lines.dimensions} | {"lines": lines.line}


def test_names_are_evenly_spaced_and_a_dash_is_where_a_param_does_not_apply() -> None:
    records = [
        trial(1, [0.5], params={"keep_statistics": True}),
        trial(4, [0.5]),
        trial(2, [0.5]),
    ]
    found = axes(records)["keep_statistics"]
    assert list(found.ticktext) == ["–", "no", "yes"]
    assert list(found["values"]) == [2, 1, 0]


def test_a_range_that_is_sampled_in_decades_is_drawn_in_decades() -> None:
    found = axes(many_trials(40))
    assert max(found["lr"]["values"]) < -0.9
    assert float(found["lr"].ticktext[0]) < 1e-4
    assert 0 <= min(found["dropout"]["values"]) < max(found["dropout"]["values"]) <= 0.5


def test_the_best_trial_has_the_colour_that_is_drawn_last() -> None:
    records = [trial(i, [v]) for i, v in enumerate([0.5, 0.3, 0.9])]
    for objective in ("nll", "auroc"):
        colours = list(axes(records, objective)["lines"].color)
        best = ranked(records, objective)[0].number
        assert colours.index(max(colours)) == best
