"""Drift of the newest images against the bundle's profile."""

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.profile import STATISTICS, Profile, build_profile
from serving.monitor.drift import ENOUGH, Drift

VALUES = np.linspace(0, 1, 200)
PROFILE: Profile = build_profile(dict.fromkeys(STATISTICS, VALUES), VALUES, "first")
NAMES = {*STATISTICS, "probability"}


def fill(drift: Drift, values: list[float], *, probability: float | None = None) -> None:
    for value in values:
        drift.add(dict.fromkeys(STATISTICS, value), value if probability is None else probability)


def test_nothing_is_told_before_a_hundred_images() -> None:
    drift = Drift(PROFILE, 1000)
    fill(drift, [0.5] * (ENOUGH - 1))
    assert drift.values() == {}
    fill(drift, [0.5])
    assert set(drift.values()) == NAMES


def test_images_like_those_at_build_do_not_drift() -> None:
    drift = Drift(PROFILE, 1000)
    fill(drift, VALUES.tolist())
    assert drift.values() == pytest.approx(dict.fromkeys(NAMES, 0), abs=1e-9)


def test_what_moved_is_told_from_what_did_not() -> None:
    drift = Drift(PROFILE, 1000)
    for value in VALUES.tolist():
        drift.add({**dict.fromkeys(STATISTICS, value), "brightness": value + 0.4}, value)
    found = drift.values()
    assert found.pop("brightness") > 0.25
    assert max(found.values()) < 1e-9


def test_the_probability_has_an_index_of_its_own() -> None:
    drift = Drift(PROFILE, 1000)
    fill(drift, VALUES.tolist(), probability=0.95)
    found = drift.values()
    assert found.pop("probability") > 1
    assert max(found.values()) < 1e-9


def test_a_value_that_never_changes_does_not_drift() -> None:
    gray = build_profile(dict.fromkeys(STATISTICS, np.ones(200)), np.ones(200), "first")
    drift = Drift(gray, 100)
    fill(drift, [1.0] * 100)
    assert drift.values() == pytest.approx(dict.fromkeys(NAMES, 0), abs=1e-9)


def test_only_the_newest_images_count() -> None:
    drift = Drift(PROFILE, 200)
    fill(drift, [0.99] * 500)
    assert drift.values()["brightness"] > 1
    fill(drift, VALUES.tolist())
    assert drift.values() == pytest.approx(dict.fromkeys(NAMES, 0), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(100, 300))
def test_a_full_window_says_what_a_new_one_of_its_images_says(seed: int, n: int) -> None:
    values = np.random.default_rng(seed).normal(0.5, 0.5, n).tolist()
    long, short = Drift(PROFILE, 100), Drift(PROFILE, 100)
    fill(long, values)
    fill(short, values[-100:])
    assert long.values() == short.values()


def test_values_beyond_all_that_was_seen_are_counted() -> None:
    drift = Drift(PROFILE, 100)
    fill(drift, [-1e30, 1e30, float("inf"), float("nan")] * 25)
    assert all(np.isfinite(value) for value in drift.values().values())


@pytest.mark.parametrize("window", [0, ENOUGH - 1])
def test_a_window_that_is_too_small_tells_nothing(window: int) -> None:
    drift = Drift(PROFILE, window)
    fill(drift, [0.5] * 300)
    assert drift.values() == {}


def test_without_a_profile_nothing_is_done() -> None:
    drift = Drift(None, 1000)
    drift.add({}, 0.5)
    fill(drift, [0.5] * 200)
    assert drift.values() == {}


class Slow(deque[bytes]):
    """A ring in which other threads find time between an image that leaves and one that comes."""

    def append(self, bins: bytes) -> None:
        time.sleep(1e-4)
        super().append(bins)


def test_threads_keep_no_more_images_than_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.monitor.drift.deque", Slow)
    drift, alone = Drift(PROFILE, 200), Drift(PROFILE, 200)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: fill(drift, VALUES[i::4].tolist() * 2), range(4)))
    for each in (drift, alone):
        fill(each, VALUES.tolist())
    assert drift.values() == alone.values()
