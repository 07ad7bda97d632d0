import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import ConfigError
from serving.retries import Attempts, Retries, is_busy, parse_retry_after

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311


def attempts(clock: Clock, **values: float) -> Attempts:
    return Attempts(Retries(**values), rng=seeded(0), clock=clock)  # type: ignore[arg-type]


@given(
    attempt=st.integers(1, 10_000),
    asked=st.none() | st.floats(0, 1e5),
    seed=st.integers(0, 9),
)
def test_a_wait_lies_between_what_is_asked_and_the_cap_above_it(
    attempt: int, asked: float | None, seed: int
) -> None:
    wait = Retries(base_s=0.2, cap_s=5).wait(attempt, asked, seeded(seed))
    assert (asked or 0) <= wait <= (asked or 0) + min(5, 0.2 * 2 ** min(attempt - 1, 10))


def test_waits_are_spread_over_all_of_their_range() -> None:
    rng = seeded(0)
    waits = [Retries(base_s=1).wait(2, None, rng) for _ in range(200)]
    assert min(waits) < 0.2
    assert max(waits) > 1.8


def test_the_last_attempt_is_followed_by_none() -> None:
    call = attempts(Clock(), attempts=3)
    assert [call.next_wait() is None for _ in range(3)] == [False, False, True]
    assert attempts(Clock(), attempts=1).next_wait() is None


def test_no_attempt_begins_past_the_deadline() -> None:
    clock = Clock()
    call = attempts(clock, attempts=99, deadline_s=10)
    assert call.left_s == 10
    assert call.next_wait(retry_after=9.0) is not None
    clock.now += 9.5
    assert call.next_wait(retry_after=1.0) is None
    clock.now += 1
    assert call.left_s == 0
    assert call.next_wait() is None


def test_a_service_that_asks_for_more_time_than_there_is_is_not_asked_again() -> None:
    assert attempts(Clock(), deadline_s=60).next_wait(retry_after=61) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("3", 3),
        (" 0 ", 0),
        ("-3", None),
        ("1e3", None),
        ("nan", None),
        ("soon", None),
        ("\u0663", None),
        ("9" * 60, 86_400),
        (format_datetime(NOW + timedelta(seconds=7), usegmt=True), 7),
        (format_datetime(NOW - timedelta(seconds=7), usegmt=True), 0),
        ("Thu, 01 Jan 2026 12:00:05 -0000", 5),
        ("Thu, 01 Jan 99999 12:00:05 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text(max_size=80))
def test_any_header_is_read_as_a_bounded_number_or_as_none(value: str) -> None:
    seconds = parse_retry_after(value)
    assert seconds is None or 0 <= seconds <= 86_400


def test_only_429_and_503_mean_later() -> None:
    assert [status for status in range(100, 600) if is_busy(status)] == [429, 503]


@pytest.mark.parametrize(
    "values",
    [{"attempts": 0}, {"base_s": -1}, {"cap_s": float("nan")}, {"deadline_s": 0}],
)
def test_values_that_no_call_can_keep_to_are_refused(values: dict[str, float]) -> None:
    name, value = next(iter(values.items()))
    with pytest.raises(ConfigError, match=rf"{name} {value}"):
        Retries(**values)  # type: ignore[arg-type]
