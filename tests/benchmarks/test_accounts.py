from pathlib import Path

import pytest

from search.params import Params
from search.study.records import StudyFolder, TrialRecord
from tests.benchmarks.accounts import Stint, gaps_of, idle_of, stint, stints_of

# Two slots from 0 to 10: one begins at 1, the other at 2; the last trial starts at 6.
STINTS = [
    Stint("a", 1, 4, 2.5, 0.25),
    Stint("b", 2, 5, 2.5, 0.25),
    Stint("a", 5, 9, 3.5, 0.25),
    Stint("b", 6, 8, 1.5, 0.5),
]


def a_record(**changes: object) -> TrialRecord:
    settings: dict[str, object] = {
        "number": 3,
        "status": "complete",
        "params": Params(),
        "fold": 0,
        "started": "2026-01-01T00:00:01.500+00:00",
        "seconds": 10,
        "worker": "host:7",
        "epochs": [
            {"train_seconds": 4.0, "val_seconds": 1.0},
            {"train_seconds": 3, "val_seconds": 0.5},
        ],
    }
    return TrialRecord.model_validate({**settings, **changes})


def test_a_record_tells_what_of_its_time_were_steps() -> None:
    found = stint(a_record())
    assert found.end - found.start == pytest.approx(10)
    assert found.steps == pytest.approx(8.5)
    assert found.start % 60 == pytest.approx(1.5)


def test_without_a_note_of_the_first_step_it_takes_all_that_was_no_step() -> None:
    assert stint(a_record()).first_step == pytest.approx(1.5)


def test_idle_time_is_told_apart_by_when_it_was() -> None:
    idle = idle_of(STINTS, 2, 0, 10)
    assert idle.before == pytest.approx(3)  # 2 of the slot b, 1 of a
    assert idle.between == pytest.approx(2)  # 4 to 5 of a, 5 to 6 of b
    assert idle.after == pytest.approx(3)  # 9 to 10 of a, 8 to 10 of b
    assert sum(idle) + sum(s.end - s.start for s in STINTS) == pytest.approx(2 * 10)


def test_where_no_trial_ran_all_slots_were_idle() -> None:
    assert idle_of([], 2, 0, 10) == (20, 0, 0)


def test_a_gap_ends_with_the_next_trials_first_step_in_the_same_worker() -> None:
    assert gaps_of(STINTS) == [pytest.approx(1.25), pytest.approx(1.5)]


def test_finalists_are_told_apart_and_a_trial_that_never_started_is_left_out(
    tmp_path: Path,
) -> None:
    folder = StudyFolder(tmp_path)
    folder.write_record(a_record())
    folder.write_record(a_record(fold=1, worker="host:8"))
    folder.write_record(a_record(number=4, started=None))
    first, others = stints_of(folder)
    assert [s.worker for s in first] == ["host:7"]
    assert [s.worker for s in others] == ["host:8"]
