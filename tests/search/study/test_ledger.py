"""The ledger ranks what may be ranked, and remembers nothing more of a trial than a few numbers."""

from typing import Any

from search.params import Params
from search.study.ledger import Ledger
from search.study.records import TrialRecord

NO_RECIPES: frozenset[str] = frozenset()


def a_record(number: int, value: float | None = None, **changes: Any) -> TrialRecord:
    epochs = [] if value is None else [{"nll": value}]
    settings: dict[str, Any] = {
        "number": number,
        "status": "complete",
        "params": Params(),
        "fold": 0,
        "value": value,
        "epochs": epochs,
        "best_epoch": 1 if epochs else None,
    }
    return TrialRecord.model_validate({**settings, **changes})


def numbers(ledger: Ledger) -> list[int]:
    return [entry.number for entry in ledger.ranking()]


def test_the_best_is_the_least_nll_and_the_largest_auroc() -> None:
    records = [a_record(0, 0.4), a_record(1, 0.2), a_record(2, 0.3)]
    assert numbers(Ledger(["nll"], records)) == [1, 2, 0]
    assert numbers(Ledger(["auroc"], records)) == [0, 2, 1]
    best = Ledger(["auroc"], records).best
    assert best is not None
    assert best.number == 0


def test_what_failed_or_breaks_a_constraint_is_not_ranked() -> None:
    ledger = Ledger(
        ["nll"],
        [
            a_record(0, 0.1, status="failed"),
            a_record(1, 0.2, violations={"params_m": 3.0}),
            a_record(2, 0.3, status="pruned"),
            a_record(3, None, status="pruned"),
        ],
    )
    assert numbers(ledger) == [2]
    assert dict(ledger.counts()) == {"failed": 1, "complete": 1, "pruned": 2}


def test_a_trial_that_is_done_again_counts_its_cost_only() -> None:
    ledger = Ledger(["nll"], [a_record(0, 0.1, status="failed", again=True, gpu_hours=2.0)])
    assert ledger.gpu_hours == 2.0
    assert not ledger.counts()


def test_finalists_were_not_stopped_early() -> None:
    ledger = Ledger(
        ["nll"],
        [
            a_record(0, 0.1, status="pruned"),
            a_record(1, 0.2, promoted_from=2),
            a_record(2, 0.3),
            a_record(3, 0.4),
        ],
    )
    assert ledger.finalists(2) == [1, 2]
    assert ledger.finalists(2, promoted=False) == [2, 3]


def test_the_front_of_two_objectives_comes_first() -> None:
    both = [(0.1, 9.0), (0.2, 1.0), (0.3, 2.0), (0.15, 9.0), (0.05, 20.0)]
    ledger = Ledger(
        ["nll", "latency_ms"],
        [a_record(i, a, values={"nll": a, "latency_ms": b}) for i, (a, b) in enumerate(both)],
    )
    assert numbers(ledger) == [4, 0, 1, 3, 2]


def test_a_trial_without_one_of_its_objectives_is_not_ranked() -> None:
    ledger = Ledger(["nll", "auroc"], [a_record(0, 0.1, values={"nll": 0.1})])
    assert numbers(ledger) == []


def test_weights_stay_for_the_best_by_objective_by_nll_and_for_named_recipes() -> None:
    records = [
        a_record(0, 0.9, epochs=[{"nll": 0.5}]),
        a_record(1, 0.8, epochs=[{"nll": 0.1}]),
        a_record(2, 0.7, epochs=[{"nll": 0.6}]),
        a_record(3, 0.1, epochs=[{"nll": 0.9}], recipe="vgg16"),
        a_record(4, 0.2, epochs=[{"nll": 0.9}], recipe="mine_1"),
    ]
    ledger = Ledger(["auroc"], records)
    assert ledger.worth_keeping(1, frozenset({"vgg16"})) == {0, 1, 3}
    assert ledger.worth_keeping(2, NO_RECIPES) == {0, 1}
