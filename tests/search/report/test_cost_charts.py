"""Who trained when, what the time went to, and how folds differ."""

from datetime import timedelta
from statistics import stdev
from typing import Any

import pytest

from search.report.cost_charts import (
    folds_figure,
    lanes_of,
    timeline_figure,
    timeline_of,
    times_figure,
    times_of,
)
from search.study.records import TrialRecord
from tests.search.report.studies import BEGUN, every_kind, trial


def at(number: int, start: float, seconds: float, worker: str = "a:1") -> TrialRecord:
    started = (BEGUN + timedelta(seconds=start)).isoformat()
    return trial(number, [0.5], started=started, seconds=seconds, worker=worker)


def test_spans_count_from_the_first_start() -> None:
    timeline = timeline_of([at(1, 50, 10), at(0, 20, 25)])
    assert [(s.record.number, s.start, s.end) for s in timeline.spans] == [(0, 0, 25), (1, 30, 40)]
    assert (timeline.cuts, timeline.paused) == ([], 0)


def test_a_long_pause_is_cut_out_and_told() -> None:
    timeline = timeline_of([at(0, 0, 100), at(1, 10, 20, "a:2"), at(2, 4100, 5), at(3, 4110, 5)])
    assert [span.start for span in timeline.spans] == [0, 10, 100, 110]
    assert (timeline.cuts, timeline.paused) == ([100], 4000)


def test_trials_that_do_not_say_when_or_where_are_left_out() -> None:
    records = [trial(0, [0.5], started=None), trial(1, [0.5], worker=None)]
    assert timeline_of(records).spans == []
    assert timeline_of([]).spans == []


def test_a_time_without_a_zone_is_utc() -> None:
    naive = trial(1, [0.5], started="2026-01-01T00:00:30")
    assert timeline_of([at(0, 0, 5), naive]).spans[1].start == 30


def test_workers_share_a_lane_of_their_host_unless_they_overlap() -> None:
    records = [
        at(0, 0, 10, "a:1"),
        at(1, 5, 10, "a:2"),
        at(2, 20, 10, "a:3"),
        at(3, 2, 9, "b:1"),
        at(4, 30, 9, "a:1"),
    ]
    lanes = lanes_of(timeline_of(records))
    assert lanes == {"a:1": "a 1", "a:2": "a 2", "a:3": "a 2", "b:1": "b 1"}


def test_the_timeline_has_a_bar_a_training_coloured_by_its_end() -> None:
    figure = timeline_figure(timeline_of(every_kind()))
    counts = {trace.name: len(trace.x) for trace in figure.data}
    assert counts == {
        "complete (5)": 5,
        "pruned (2)": 2,
        "failed (3)": 3,
        "running (1)": 1,
        "finalist's fold (6)": 6,
    }
    assert list(figure.layout.yaxis.ticktext) == ["node 2", "node 1"]


def test_very_many_lanes_are_not_named() -> None:
    records = [at(i, 0, 10, f"node:{i}") for i in range(60)]
    assert timeline_figure(timeline_of(records)).layout.yaxis.showticklabels is False


def test_time_is_starting_training_validation_and_the_rest() -> None:
    assert times_of(trial(0, [0.5, 0.4])) == (0, 16, 2, 4)
    assert times_of(trial(0, [0.5, 0.4], setup_seconds=1.5)) == (1.5, 16, 2, 2.5)
    assert times_of(trial(0, [0.5], epochs=[{"nll": 0.5, "train_seconds": None}])) == (0, 0, 0, 12)


def test_time_adds_up_over_how_trials_ended() -> None:
    records = [trial(0, [0.5, 0.4]), trial(1, [0.5]), trial(2, [0.5], status="pruned")]
    found: dict[str, Any] = {trace.name: trace for trace in times_figure(records).data}
    assert list(found) == ["starting", "training", "validation", "other"]
    assert list(found["training"].y) == ["pruned", "complete"]
    assert list(found["training"].x) == pytest.approx([8 / 60, 24 / 60])


def test_mean_and_deviation_leave_fold_0_out_and_it_is_marked() -> None:
    folds = [trial(7, [v], fold=f) for f, v in enumerate([0.1, 0.5, 0.6, 0.7])]
    mean, dots, first = folds_figure({7: folds, 8: [trial(8, [0.2])]}, "nll").data
    assert list(mean.y) == [pytest.approx(0.6)]
    assert list(mean.error_y.array) == [pytest.approx(stdev([0.5, 0.6, 0.7]))]
    assert list(dots.y) == [0.5, 0.6, 0.7]
    assert list(zip(first.x, first.y, strict=True)) == [("trial 7", 0.1), ("trial 8", 0.2)]
    assert first.name == "fold 0, which chose them"


def test_one_other_fold_has_no_deviation() -> None:
    mean, *_ = folds_figure({0: [trial(0, [0.3]), trial(0, [0.4], fold=1)]}, "nll").data
    assert list(mean.error_y.array) == [0]
