"""Who has a rank, who is on the front, and how the table reads."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from search.report.leaderboard import (
    achieved,
    best_epoch,
    board_columns,
    board_rows,
    pareto_front,
    printed,
    ranked,
)
from search.study.records import TrialRecord
from tests.search.report.studies import every_kind, trial

TRIALS = [record for record in every_kind() if record.fold == 0]


def keys(records: list[TrialRecord], *objectives: str, positive: bool = True) -> list[str]:
    return [column.key for column in board_columns(records, objectives, positive=positive)]


def texts(records: list[TrialRecord], key: str, *objectives: str) -> list[str]:
    columns = board_columns(records, objectives, positive=True)
    place = [column.key for column in columns].index(key)
    return [row[place].text for row in board_rows(records, columns, objectives[0])]


def numbers(records: list[TrialRecord]) -> list[int]:
    return [record.number for record in records]


def test_failed_running_and_infeasible_trials_have_no_rank() -> None:
    assert numbers(ranked(TRIALS, "nll")) == [3, 1, 0, 9, 8, 2]


def test_more_of_some_objectives_is_better() -> None:
    records = [trial(0, [0.2]), trial(1, [0.7])]
    assert numbers(ranked(records, "auroc")) == [1, 0]


def test_of_equals_the_earlier_is_ahead() -> None:
    records = [trial(5, [0.5]), trial(2, [0.5])]
    assert numbers(ranked(records, "nll")) == [2, 5]


def test_rows_come_by_rank_then_infeasible_then_those_without_a_rank() -> None:
    assert texts(TRIALS, "trial", "nll") == ["3", "1", "0", "9", "8", "2", "7", "4", "5", "6", "10"]
    assert texts(TRIALS, "rank", "nll")[5:8] == ["6", "–", "–"]


def test_metrics_are_of_the_best_epoch() -> None:
    record = trial(0, [0.9, 0.4, 0.6])
    assert best_epoch(record)["nll"] == 0.4
    assert texts([record], "specificity_at_threshold", "nll") == [f"{np.exp(-0.4):.3f}"]
    assert texts([record], "epochs", "nll") == ["3"]


def test_a_trial_that_came_to_no_epoch_has_dashes() -> None:
    record = trial(4, [], status="failed", error="the loss is nan")
    assert best_epoch(record) == {}
    assert texts([record], "nll", "nll") == ["–"]
    assert texts([record], "auroc", "nll") == ["–"]


def test_without_a_positive_class_there_is_no_threshold() -> None:
    shown = keys(TRIALS, "nll", positive=False)
    assert "auroc" in shown
    assert not [key for key in shown if "threshold" in key]


def test_an_objective_has_one_column() -> None:
    shown = keys(TRIALS, "specificity_at_sensitivity", "params_m", "auroc")
    assert shown.count("params_m") == shown.count("auroc") == 1
    assert "specificity_at_threshold" not in shown


def test_costs_and_violations_have_columns_where_there_are_any() -> None:
    assert {"params_m", "violations"} <= {*keys(TRIALS, "nll")}
    assert not {"latency_ms", "violations"} & {*keys([trial(0, [0.5])], "nll")}
    assert texts(TRIALS, "violations", "nll")[6] == "params_m 0.5"


def test_a_trial_says_where_it_comes_from() -> None:
    records = [
        trial(0, [0.1], recipe="vgg16"),
        trial(1, [0.2]),
        trial(2, [0.3], promoted_from=1),
    ]
    assert texts(records, "origin", "nll") == ["vgg16", "sampled", "second rung of trial 1"]
    assert texts(TRIALS, "status", "nll")[-2:] == ["done again", "running"]


def test_params_are_those_that_are_no_defaults() -> None:
    record = trial(0, [0.5], params={"dropout": 0.25, "lr": 0.000123}, micro_batch=8, workers=2)
    assert texts([record], "params", "nll") == [
        "dropout 0.25 · lr 0.000123 · micro-batch 8 · 2 workers"
    ]
    assert [printed(v) for v in (True, False, None, 3, "cnn")] == ["yes", "no", "–", "3", "cnn"]


def test_an_objective_is_found_wherever_it_was_recorded() -> None:
    record = trial(0, [0.5], values={"nll": 0.5, "auroc": 0.7}, costs={"latency_ms": 3.0})
    found = [achieved(record, n) for n in ("auroc", "latency_ms", "seconds", "brier")]
    assert found == [0.7, 3.0, 12.0, None]
    assert achieved(record, "specificity_at_sensitivity") == np.exp(-0.5)


def test_the_front_holds_what_nothing_beats() -> None:
    costs = [(0.5, 1.0), (0.4, 2.0), (0.6, 1.0), (0.4, 3.0), (0.9, 0.5)]
    records = [trial(i, [nll], costs={"params_m": m}) for i, (nll, m) in enumerate(costs)]
    assert numbers(pareto_front(records, ["nll", "params_m"])) == [0, 1, 4]
    assert pareto_front([], ["nll", "params_m"]) == []
    assert pareto_front([trial(0, [])], ["nll", "params_m"]) == []


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 2), min_size=1, max_size=12))
def test_whatever_is_off_the_front_is_beaten_by_one_on_it(points: list[tuple[int, int]]) -> None:
    records = [
        trial(i, [float(a)], costs={"params_m": float(b)}) for i, (a, b) in enumerate(points)
    ]
    front = {*numbers(pareto_front(records, ["nll", "params_m"]))}
    for i, (a, b) in enumerate(points):
        beaten = any(points[j][0] <= a and points[j][1] <= b and points[j] != (a, b) for j in front)
        assert beaten == (i not in front)
