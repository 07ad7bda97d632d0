"""Images of several requests, prepared and judged together."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from search.data.transforms import decode
from serving.config import Version
from serving.monitor.tracing import Span, tracer_for
from serving.problems import ProblemError
from serving.scoring.panel import Panel, Verdict
from serving.scoring.question import Prepared, Question, Scored, answer_all, judge_all, prepare
from tests.tiny import tiny_bytes

TRACER = tracer_for(None)


@pytest.fixture(scope="module")
def panel(bundle_folder: Path) -> Panel:
    return Panel(Version(path=bundle_folder), engine="torch")


def prepared(panel: Panel, seed: int, point: str | None = None) -> Prepared:
    question = Question(panel, tiny_bytes(seed), ("", 1), point)
    return prepare(question, TRACER, max_pixels=10_000)


def test_images_of_several_requests_are_judged_together_and_told_apart(panel: Panel) -> None:
    points = [None, "balanced", None, "balanced"]
    found = judge_all([prepared(panel, seed, point) for seed, point in enumerate(points)])
    for seed, (verdict, point) in enumerate(zip(found, points, strict=True)):
        assert isinstance(verdict, Verdict)
        [alone] = panel.judge([panel.prepare(decode(tiny_bytes(seed)))], point)
        np.testing.assert_allclose(verdict.probs, alone.probs, atol=1e-6)
        assert verdict.point == alone.point
        assert verdict.decision == alone.decision


def test_members_see_the_images_that_ask_alike_at_once(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    whole = panel._runtime.ask

    def ask(member: int, pixels: Any) -> Any:
        sizes.append(len(pixels))
        return whole(member, pixels)

    monkeypatch.setattr(panel._runtime, "ask", ask)
    judge_all([prepared(panel, seed) for seed in range(3)] + [prepared(panel, 9, "balanced")])
    assert sizes == [3, 3, 1, 1]


def test_a_damaged_file_among_others_is_its_own_senders_problem(panel: Panel) -> None:
    files = [tiny_bytes(0), b"no image", tiny_bytes(2)]
    questions = [Question(panel, file, ("", i), None) for i, file in enumerate(files, 1)]
    good, bad, other = answer_all(questions, TRACER, max_pixels=10_000)
    assert isinstance(bad, ProblemError)
    assert bad.code == "damaged_image"
    for found, file in ((good, files[0]), (other, files[2])):
        assert isinstance(found, Scored)
        [alone] = panel.judge([panel.prepare(decode(file))], None)
        np.testing.assert_allclose(found.verdict.probs, alone.probs, atol=1e-6)


class Noted(Span):
    """A span that notes how its work ended."""

    def __init__(self, name: str, ends: list[tuple[str, str | None]]) -> None:
        self._name, self._ends = name, ends

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Literal[False]:
        self._ends.append((self._name, None if kind is None else kind.__name__))
        return False


def test_a_trace_says_which_image_the_members_failed_on(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[tuple[str, str | None]] = []
    tracer = tracer_for(None)
    monkeypatch.setattr(tracer, "span", lambda name, **_: Noted(name, ends))
    points = (None, "unknown")
    questions = [Question(panel, tiny_bytes(0), ("", 1), point) for point in points]
    answer_all(questions, tracer, max_pixels=10_000)
    assert ends[-2:] == [("members", None), ("members", "ProblemError")]


def test_a_failure_of_one_group_leaves_the_others_their_answers(panel: Panel) -> None:
    good, bad = judge_all([prepared(panel, 0), prepared(panel, 1, "unknown")])
    assert isinstance(good, Verdict)
    assert isinstance(bad, ProblemError)
    assert bad.code == "unknown_operating_point"


def test_one_bad_image_costs_the_others_of_its_batch_nothing(
    panel: Panel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, bad = panel._runtime.ask, prepared(panel, 1)

    def ask(member: int, pixels: Any) -> Any:
        probs, near = whole(member, pixels)
        spoilt = [np.array_equal(one, bad.pixels[member]) for one in pixels]
        return np.where(np.array(spoilt)[:, None], np.nan, probs), near

    monkeypatch.setattr(panel._runtime, "ask", ask)
    found = judge_all([prepared(panel, 0), bad, prepared(panel, 2)])
    assert [isinstance(one, Verdict) for one in found] == [True, False, True]
    assert isinstance(found[1], ProblemError)
    assert panel.degraded is None
