import logging
import os
import queue
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.scoring.compare import LOWEST, Comparison, Counts, Said


class Reports:
    """Collects what is reported; the test waits for it."""

    def __init__(self) -> None:
        self.said: queue.Queue[tuple[str, bool, float]] = queue.Queue()

    def __call__(self, role: str, agree: bool, difference: float) -> None:
        self.said.put((role, agree, difference))

    def next(self) -> tuple[str, bool, float]:
        return self.said.get(timeout=10)


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def comparison(reports: Reports) -> Iterator[Comparison]:
    before = threading.active_count()
    comparison = Comparison(reports, room=2)
    yield comparison
    comparison.close()
    assert threading.active_count() == before


def fails() -> Said:
    raise RuntimeError("a member gives NaN")


class Held:
    """An answer that is given when the test says so."""

    def __init__(self) -> None:
        self.asked, self.free = threading.Event(), threading.Event()

    def __call__(self) -> Said:
        self.asked.set()
        assert self.free.wait(10)
        return "positive", 0.5


def settled(comparison: Comparison, reports: Reports) -> dict[str, Counts]:
    """The counts when all that was offered is done: the queue is first in, first out."""
    comparison.offer("last", ("positive", 0.5), lambda: ("positive", 0.5))
    while reports.next()[0] != "last":
        pass
    comparison.close()  # the count follows the report
    return {role: counts for role, counts in comparison.counts().items() if role != "last"}


def test_agreement_and_difference_are_counted_by_role(
    comparison: Comparison, reports: Reports
) -> None:
    comparison.offer("shadow", ("positive", 0.75), lambda: ("positive", 0.5))
    assert reports.next() == ("shadow", True, 0.25)
    comparison.offer("shadow", ("positive", 0.5), lambda: ("negative", 0.0))
    assert reports.next() == ("shadow", False, 0.5)
    comparison.offer("serving", ("refer", 0.5), lambda: ("refer", 0.5))
    assert settled(comparison, reports) == {
        "shadow": Counts(agreements=1, disagreements=1, largest=0.5, mean=0.375),
        "serving": Counts(agreements=1),
    }


def test_the_other_bundle_is_asked_in_a_thread_of_the_lowest_priority(
    comparison: Comparison, reports: Reports
) -> None:
    seen: list[tuple[str, int | None]] = []

    def ask() -> Said:
        nice = None
        if sys.platform == "linux":
            nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        seen.append((threading.current_thread().name, nice))
        return None, 0.5

    comparison.offer("shadow", (None, 0.5), ask)
    assert reports.next() == ("shadow", True, 0.0)
    assert seen == [("compare", LOWEST if sys.platform == "linux" else None)]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < LOWEST


def test_what_finds_no_room_is_dropped_and_counted(
    comparison: Comparison, reports: Reports
) -> None:
    held = Held()
    assert comparison.offer("shadow", ("positive", 0.5), held)
    assert held.asked.wait(10)
    taken = [comparison.offer("shadow", ("positive", 0.5), held) for _ in range(5)]
    assert taken == [True, True, False, False, False]
    assert comparison.counts() == {"shadow": Counts(dropped=3)}
    held.free.set()
    for _ in range(3):
        assert reports.next() == ("shadow", True, 0.0)
    assert settled(comparison, reports) == {"shadow": Counts(agreements=3, dropped=3)}


@pytest.mark.parametrize("other", [float("nan"), float("inf")])
def test_a_probability_that_is_none_counts_as_failed(
    other: float, comparison: Comparison, reports: Reports
) -> None:
    comparison.offer("shadow", ("positive", 0.5), lambda: ("positive", other))
    assert settled(comparison, reports) == {"shadow": Counts(failed=1)}


def test_a_bundle_that_raises_counts_as_failed_and_is_logged_once(
    comparison: Comparison, reports: Reports, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "consilium.compare"):
        comparison.offer("shadow", ("positive", 0.5), fails)
        comparison.offer("shadow", ("positive", 0.5), lambda: ("positive", 0.5))
        assert reports.next() == ("shadow", True, 0.0)
        comparison.offer("shadow", ("positive", 0.5), fails)
        found = settled(comparison, reports)
    assert found == {"shadow": Counts(agreements=1, failed=2)}
    assert [record.message for record in caplog.records] == ["a comparison with the shadow failed"]


def test_a_report_that_raises_does_not_end_the_thread() -> None:
    told = Reports()

    def report(role: str, agree: bool, difference: float) -> None:
        told(role, agree, difference)
        if role == "shadow":
            raise KeyError(role)

    comparison = Comparison(report)
    comparison.offer("shadow", ("positive", 0.5), lambda: ("positive", 0.5))
    assert settled(comparison, told) == {"shadow": Counts(failed=1)}


def test_without_a_report_it_still_counts() -> None:
    comparison, held = Comparison(), Held()
    held.free.set()
    comparison.offer("shadow", ("positive", 0.5), lambda: ("positive", 0.5))
    comparison.offer("shadow", ("positive", 0.5), held)
    assert held.asked.wait(10)  # so the one before it is done
    assert comparison.counts()["shadow"].agreements >= 1
    comparison.close()


def test_after_a_reset_what_was_offered_before_does_not_count(
    comparison: Comparison, reports: Reports
) -> None:
    held = Held()
    comparison.offer("shadow", ("positive", 0.5), held)
    comparison.offer("shadow", ("positive", 0.5), fails)
    assert held.asked.wait(10)
    comparison.reset()
    held.free.set()
    assert settled(comparison, reports) == {}


def test_closing_drops_what_waits_and_takes_no_more() -> None:
    comparison, held = Comparison(room=4), Held()
    comparison.offer("shadow", ("positive", 0.5), held)
    assert held.asked.wait(10)
    for _ in range(4):
        comparison.offer("shadow", ("positive", 0.5), held)
    closing = threading.Thread(target=comparison.close)
    closing.start()
    while comparison.counts().get("shadow") != Counts(dropped=4):
        assert closing.is_alive()
    held.free.set()
    closing.join(10)
    comparison.close()
    assert not comparison.offer("shadow", ("positive", 0.5), held)
    assert comparison.counts() == {"shadow": Counts(agreements=1, dropped=5)}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_mean_is_that_of_all_differences(differences: list[float]) -> None:
    counts = Counts()
    for difference in differences:
        counts = counts.compared(agree=True, difference=difference)
    assert counts.mean == pytest.approx(sum(differences) / len(differences))
    assert counts.largest == max(differences)
    assert counts.agreements == len(differences)
