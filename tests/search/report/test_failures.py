"""Failures by reason."""

from search.report.failures import failures_of
from tests.search.report.studies import every_kind, trial


def test_one_reason_with_other_numbers_is_one_group() -> None:
    first, _ = failures_of(every_kind())
    assert first.reason == "the loss is nan in epoch 1; lower lr"
    assert [f.name for f in first.failures] == ["trial 4 (sampled)", "trial 5 (sampled)"]
    assert first.failures[1].reason == "the loss is nan in epoch 2; lower lr"


def test_the_largest_group_is_first_and_those_done_again_are_last() -> None:
    failed = {"status": "failed"}
    records = [
        trial(0, [], **failed, error="the worker died", again=True),
        trial(1, [], **failed, error="the worker died", again=True),
        trial(2, [], **failed, error="b"),
        trial(3, [], **failed, error="c"),
        trial(4, [], **failed, error="c"),
        trial(5, [], **failed, error="the worker died"),
    ]
    groups = [(g.reason, g.again, len(g.failures)) for g in failures_of(records)]
    assert groups == [
        ("c", False, 2),
        ("b", False, 1),
        ("the worker died", False, 1),
        ("the worker died", True, 2),
    ]


def test_a_failure_says_its_fold_and_its_params() -> None:
    record = trial(1, [], status="failed", fold=2, recipe="vgg16")
    ((failure,),) = [group.failures for group in failures_of([record])]
    assert failure.name == "trial 1, fold 2 (vgg16)"
    assert failure.reason == "no reason was written down"
    assert failure.params == "backbone mobilenetv2_035, dropout 0.15, lr 0.01"


def test_trials_that_went_well_are_no_failures() -> None:
    assert failures_of([trial(0, [0.5])]) == []
