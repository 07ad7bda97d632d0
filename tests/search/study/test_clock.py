"""Wall time adds up over restarts, and a budget ends."""

from pathlib import Path

import pytest

from search.config import BudgetConfig
from search.study import clock
from search.study.clock import Clock


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    fake = Time()
    monkeypatch.setattr(clock, "time", fake)
    return fake


def test_time_adds_up_over_restarts(tmp_path: Path, time: Time) -> None:
    for seconds in (10, 20):
        running = Clock(tmp_path / "clock.json", BudgetConfig(minutes=1))
        time.now += seconds
        running.save(now=True)
    assert Clock(tmp_path / "clock.json", BudgetConfig()).seconds == 30
    assert running.seconds_left() == 30
    time.now += 31
    assert running.seconds_left() == 0


def test_it_is_written_every_few_seconds_only(tmp_path: Path, time: Time) -> None:
    running = Clock(tmp_path / "clock.json", BudgetConfig())
    running.save()
    time.now += 1
    running.save()
    assert Clock(tmp_path / "clock.json", BudgetConfig()).seconds == 0
    time.now += clock.SAVE_EVERY
    running.save()
    assert Clock(tmp_path / "clock.json", BudgetConfig()).seconds == 1 + clock.SAVE_EVERY


def test_without_a_budget_nothing_is_left_of_it(tmp_path: Path) -> None:
    running = Clock(tmp_path / "clock.json", BudgetConfig())
    assert running.seconds_left() is None
    assert running.gpu_hours_left(5) is None


def test_gpu_hours_are_used_up(tmp_path: Path) -> None:
    running = Clock(tmp_path / "clock.json", BudgetConfig(gpu_hours=2))
    assert running.gpu_hours_left(0.5) == 1.5
    assert running.gpu_hours_left(3) == 0
