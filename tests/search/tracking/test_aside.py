"""Tasks in a thread of their own."""

import threading
from functools import partial

import pytest

from search.tracking.aside import Aside


def test_tasks_are_done_in_order_and_close_waits_for_them() -> None:
    aside, done = Aside(), list[int]()
    for number in range(5):
        aside.do(partial(done.append, number))
    aside.close()
    assert done == [0, 1, 2, 3, 4]


def test_after_a_failure_nothing_is_done_and_its_error_comes_back() -> None:
    aside, done, failed = Aside(), list[str](), threading.Event()

    def fail() -> None:
        failed.set()
        raise ValueError("no such server")

    aside.do(fail)
    aside.do(lambda: done.append("later"))
    assert failed.wait(60)
    for _ in range(2):
        with pytest.raises(ValueError, match="no such server"):
            aside.close()
    with pytest.raises(ValueError, match="no such server"):
        aside.do(lambda: done.append("after"))
    assert done == []


def test_what_takes_too_long_is_not_waited_for() -> None:
    aside, go, done = Aside(), threading.Event(), list[str]()
    aside.do(lambda: done.append(f"first {go.wait(60)}"))
    aside.do(lambda: done.append("later"))
    assert aside.waiting >= 1
    with pytest.raises(TimeoutError, match=r"not done within 0.01 s"):
        aside.close(patience=0.01)
    go.set()
