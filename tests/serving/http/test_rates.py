"""Token buckets: what passes in how long, and how much memory strangers can take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.config import RateConfig
from serving.http import rates as module
from serving.http.rates import Rates
from serving.problems import ProblemError


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def passes(rates: Rates, name: str = "a", cost: float = 1.0) -> bool:
    try:
        rates.take(name, cost)
    except ProblemError:
        return False
    return True


def make(per_minute: int, burst: int) -> tuple[Rates, Clock]:
    clock = Clock()
    return Rates(RateConfig(per_minute=per_minute, burst=burst), clock=clock), clock


def test_a_burst_passes_and_then_the_rate() -> None:
    rates, clock = make(60, 3)
    assert [passes(rates) for _ in range(5)] == [True, True, True, False, False]
    clock.now += 1
    assert [passes(rates) for _ in range(2)] == [True, False]
    clock.now += 1000
    assert [passes(rates) for _ in range(4)] == [True, True, True, False]


def test_each_name_has_its_own_bucket() -> None:
    rates, _ = make(60, 1)
    assert passes(rates, "a")
    assert passes(rates, "b")
    assert not passes(rates, "a")


@pytest.mark.parametrize(("per_minute", "cost", "wait"), [(60, 1, 1), (6, 1, 10), (6, 2, 20)])
def test_the_refusal_says_how_long_to_wait_and_that_is_enough(
    per_minute: int, cost: float, wait: int
) -> None:
    rates, clock = make(per_minute, 2)
    rates.take("a", 2)
    with pytest.raises(ProblemError, match=rf"wait {wait} s") as refusal:
        rates.take("a", cost)
    assert (refusal.value.status, refusal.value.code) == (429, "rate_limited")
    assert refusal.value.headers == {"Retry-After": str(wait)}
    clock.now += wait
    assert passes(rates, cost=cost)


def test_what_costs_more_than_the_bucket_waits_for_a_full_one_and_leaves_a_debt() -> None:
    rates, clock = make(60, 4)
    assert passes(rates, cost=10)
    clock.now += 6
    assert not passes(rates)
    clock.now += 1
    assert passes(rates)
    assert not passes(rates, cost=10)


@given(
    st.integers(1, 600),
    st.integers(1, 20),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 3)), max_size=60),
)
def test_no_more_passes_than_the_burst_and_the_rate(
    per_minute: int, burst: int, asked: list[tuple[float, float]]
) -> None:
    rates, clock = make(per_minute, burst)
    start, passed = clock.now, 0.0
    for pause, cost in asked:
        clock.now += pause
        passed += cost if passes(rates, cost=cost) else 0
        allowed = burst + (clock.now - start) * per_minute / 60
        assert passed <= allowed + max(3 - burst, 0) + 1e-6


def test_many_addresses_take_no_more_than_so_many_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUCKETS", 10)
    rates, _ = make(60, 1)
    for index in range(1000):
        rates.take(str(index))
    assert len(rates) == 10
    assert not passes(rates, "999")
    assert not passes(rates, "990")
    assert passes(rates, "0")  # long forgotten


def test_who_keeps_asking_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BUCKETS", 10)
    rates, _ = make(60, 1)
    rates.take("loud")
    for index in range(100):
        rates.take(str(index))
        assert not passes(rates, "loud")
