import json
from collections import deque
from pathlib import Path

import numpy as np
import optuna
import pytest

from search.params import Params
from search.study.storage import opened_storage
from tests.benchmarks.cluster.thousand import measure_thousand
from tests.benchmarks.cluster.thousand_driver import Call, Kind
from tests.benchmarks.cluster.thousand_figures import (
    KINDS,
    Costs,
    ModelDriver,
    fit_costs,
    most_slots,
    rate_asked,
)
from tests.benchmarks.cluster.thousand_loop import START_S, play
from tests.benchmarks.cluster.thousand_storage import ComparedStorage, count_statements
from tests.benchmarks.cluster.thousand_stub import EPOCH_S, StubTrial


class Slow:
    """A driver that takes 2 s for a trial and 1 s for a report; a trial is one epoch of 10 s."""

    def __init__(self, trials: int) -> None:
        self._names = deque(str(number) for number in range(trials))

    def ask(self) -> tuple[float, str | None, float]:
        return (2.0, self._names.popleft(), 10.0) if self._names else (0.0, None, 0.0)

    def hear(self, trial: str) -> tuple[float, bool]:  # noqa: ARG002
        return 1.0, False


def test_slots_wait_for_a_driver_that_serves_one_after_the_other() -> None:
    outcome = play([0.0] * 3, Slow(3))
    assert outcome.asked == outcome.reported == 3
    assert outcome.filled == 6.0
    assert outcome.waited == 2 + 4 + 6 + 3 * 1.0
    assert outcome.seconds == 6 + START_S + 10 + 1


def test_a_slot_that_comes_later_asks_later() -> None:
    outcome = play([100.0, 0.0], Slow(9))
    assert outcome.asked == 9
    assert outcome.seconds > 100 + 2 + START_S + 10


def test_only_as_optuna_does_are_running_trials_read_again(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with opened_storage(f"sqlite:///{tmp_path / 'optuna.db'}") as backend:
        storage = ComparedStorage(backend)
        study = optuna.create_study(storage=storage, study_name="compared")
        study.ask().suggest_float("lr", 1e-3, 1e-1)
        study.tell(study.ask(), 0.5)
        kept, statements = study.get_trials(deepcopy=False), count_statements(backend)
        with storage.as_optuna_does():
            before = statements()
            assert study.get_trials(deepcopy=False) == kept
            assert statements() > before > 0
        before = statements()
        assert study.get_trials(deepcopy=False) == kept
        assert statements() == before


def a_call(kind: Kind, running: int, ended: int, seconds: float) -> Call:
    return Call(kind, False, running, ended, wall=9.0, cpu=seconds, server=0.0, statements=4)


def test_costs_are_found_again_by_how_many_run_and_have_ended() -> None:
    loads = [(10, 0), (100, 50), (1000, 200), (1000, 5000)]
    calls = [a_call(kind, r, e, 0.01 + 0.002 * r + 1e-5 * e) for kind in KINDS for r, e in loads]
    costs = fit_costs(calls, optunas=False, around=False)
    assert costs.seconds("suggest", 500, 1000) == pytest.approx(0.01 + 1 + 0.01)
    around = fit_costs(calls, optunas=False)
    assert around.seconds("end", 500, 1000) == pytest.approx(1.02 + 4 * 0.0005 + 3 * 0.03)


def flat(seconds: float) -> Costs:
    return Costs({kind: np.array([seconds, 0.0, 0.0]) for kind in KINDS})


def test_the_most_gpus_leave_the_driver_no_time() -> None:
    costs, epochs = flat(0.1), 2.0
    most = most_slots(costs, 1000, epochs)
    each = costs.each_trial(most, 1000, epochs)
    assert each == pytest.approx(0.1 + 2 * 0.1 + 0.1)
    assert rate_asked(most, epochs) * each < 1 <= rate_asked(most + 1, epochs) * each


def test_trials_of_the_model_last_as_long_as_the_real_ones() -> None:
    outcome = play([0.0] * 4, ModelDriver(flat(0.0), [3], trials=20))
    assert (outcome.asked, outcome.reported) == (20, 60)
    assert outcome.waited == 0
    assert outcome.seconds > 5 * EPOCH_S


def test_a_stub_trial_is_drawn_by_its_number_alone() -> None:
    one, same, other = (StubTrial(number, Params()) for number in (4, 4, 5))
    assert one.train() == same.train()
    assert one.epoch_s == same.epoch_s != other.epoch_s
    json.dumps(dict(other.train()))


@pytest.mark.slow
def test_a_small_search_says_what_its_driver_costs(tmp_path: Path) -> None:
    found = measure_thousand(tmp_path, trials=150, slots=20)
    assert found["look_3_suggest_statements_optuna"] > found["look_3_suggest_statements"] > 0
    assert found["most_gpus_optuna"] < found["most_gpus"]
    assert 1 <= found["epochs"] <= 9
    assert 0 < found["idle_share"] < 1
    assert all(np.isfinite(list(found.values())))
