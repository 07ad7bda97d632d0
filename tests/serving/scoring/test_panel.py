"""A bundle that is asked: all of its members, the survivors, or the first of a cascade."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from ensemble.bundle import load_bundle
from ensemble.calibration.calibrators import Temperature
from ensemble.manifest import Agreement, Cascade, Exit, Novelty, Stage, Survivors
from ensemble.novelty import Reference, write_reference
from ensemble.runtime import Runtime
from search.data.transforms import decode
from search.errors import BundleError
from serving.config import Version
from serving.problems import ProblemError
from serving.scoring.panel import Panel
from tests.points import a_point
from tests.serving.bundles import rebuilt
from tests.tiny import tiny_bytes

ALONE = [
    Survivors(
        members=[name],
        calibrator=Temperature(temperature=temperature),
        operating_points=[a_point("sensitivity_0.95", 0.2), a_point("balanced", 0.6)],
    )
    for name, temperature in (("cnn_0", 2.0), ("cnn_1", 3.0))
]


def panel_of(folder: Path, **options: Any) -> Panel:
    return Panel(Version(path=folder), **options)


def prepared(panel: Panel, seed: int = 0) -> Any:
    return panel.prepare(decode(tiny_bytes(seed)))


def member_probs(folder: Path, seed: int) -> NDArray[np.float32]:
    """(n_members, n_classes) of one image."""
    return Runtime(load_bundle(folder)).predict([decode(tiny_bytes(seed))]).member_probs[:, 0]


def broken(panel: Panel, member: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a member raises whatever it is asked."""
    whole = panel._runtime.ask

    def ask(index: int, pixels: Any) -> Any:
        if index == member:
            raise RuntimeError("no memory is left")
        return whole(index, pixels)

    monkeypatch.setattr(panel._runtime, "ask", ask)


def test_survivors_answer_by_a_calibrator_and_thresholds_of_their_own(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = rebuilt(tmp_path / "b", bundle_folder, survivors=ALONE)
    panel = panel_of(folder)
    broken(panel, 1, monkeypatch)
    [verdict] = panel.judge([prepared(panel)], "balanced")
    expected = ALONE[0].calibrator.apply(member_probs(folder, 0)[:1])[0]
    np.testing.assert_allclose(verdict.probs, expected, atol=1e-6)
    assert list(verdict.member_probs) == ["cnn_0"]
    assert verdict.decision == ("positive" if expected[1] >= 0.6 else "negative")
    assert panel.degraded == ("1 of 2 members answer, by thresholds of their own; failed: cnn_1")
    found = panel.operating_point(None)
    assert found is not None
    assert found.threshold == 0.2


def test_without_thresholds_for_those_left_nobody_answers(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = panel_of(bundle_folder)
    broken(panel, 0, monkeypatch)
    assert panel.answers
    for _ in range(2):
        with pytest.raises(ProblemError, match=r"cnn_0 failed, and the bundle has no thresholds"):
            panel.judge([prepared(panel)], None)
    assert not panel.answers


def test_a_member_that_fails_on_one_image_alone_is_not_lost_for_it(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = panel_of(rebuilt(tmp_path / "b", bundle_folder, survivors=ALONE))
    whole, bad = panel._runtime.ask, prepared(panel, 3)

    def ask(index: int, pixels: Any) -> Any:
        probs, near = whole(index, pixels)
        return (probs * np.nan if np.array_equal(pixels[0], bad[index]) else probs), near

    monkeypatch.setattr(panel._runtime, "ask", ask)
    with pytest.raises(ProblemError, match=r"cannot score this image") as refused:
        panel.judge([bad], None)
    assert refused.value.status == 422
    assert panel.degraded is None
    assert panel.judge([prepared(panel)], None)


def without_session(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine refuses one member's graph, as one of another version does."""
    whole = onnxruntime.InferenceSession

    def session(path: Path, *rest: Any, **options: Any) -> Any:
        if path.stem == member:
            raise RuntimeError("opset 99 is not known")
        return whole(path, *rest, **options)

    monkeypatch.setattr("ensemble.runtime.onnxruntime.InferenceSession", session)


def test_a_member_that_cannot_be_loaded_is_left_out_at_the_start(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = rebuilt(tmp_path / "b", bundle_folder, survivors=ALONE)
    without_session("cnn_0", monkeypatch)
    panel = panel_of(folder)
    assert panel.degraded is not None
    assert panel.degraded.endswith("failed: cnn_0")
    assert list(panel.judge([prepared(panel)], None)[0].member_probs) == ["cnn_1"]


def test_a_bundle_that_cannot_go_on_without_a_member_is_refused(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_session("cnn_0", monkeypatch)
    with pytest.raises(BundleError, match=r"cannot be loaded.*; the bundle has no thresholds"):
        panel_of(bundle_folder)


def cascade(below: float, above: float) -> Cascade:
    """Member cnn_0 alone decides outside of these bounds."""
    exits = [Exit(point="sensitivity_0.95", negative_below=below, positive_from=above)]
    stage = Stage(members=["cnn_0"], exits=exits, leaving={"sensitivity_0.95": 0.5})
    agreement = Agreement(point="sensitivity_0.95", disagreements=0, n=100, at_most=0.04, cost=0.6)
    return Cascade(stages=[stage], agreements=[agreement], confidence=0.95)


def test_the_first_member_answers_alone_where_it_is_sure_enough(
    bundle_folder: Path, tmp_path: Path
) -> None:
    folder = rebuilt(tmp_path / "b", bundle_folder, survivors=ALONE, cascade=cascade(0.0, 1e-9))
    panel = panel_of(folder)
    [verdict] = panel.judge([prepared(panel)], None)
    assert (list(verdict.member_probs), verdict.decision) == (["cnn_0"], "positive")
    expected = ALONE[0].calibrator.apply(member_probs(folder, 0)[:1])[0]
    np.testing.assert_allclose(verdict.probs, expected, atol=1e-6)


@pytest.mark.parametrize("why", ["unsure", "another point", "every member", "switched off"])
def test_else_the_whole_ensemble_answers(bundle_folder: Path, tmp_path: Path, why: str) -> None:
    bounds = (0.0, 2.0) if why == "unsure" else (0.0, 1e-9)
    folder = rebuilt(tmp_path / "b", bundle_folder, survivors=ALONE, cascade=cascade(*bounds))
    panel = panel_of(folder, cascade=why != "switched off")
    point = "balanced" if why == "another point" else "sensitivity_0.95"
    [verdict] = panel.judge([prepared(panel)], point, every_member=why == "every member")
    whole = Runtime(load_bundle(folder)).predict([decode(tiny_bytes(0))])
    assert list(verdict.member_probs) == ["cnn_0", "cnn_1"]
    np.testing.assert_allclose(verdict.probs, whole.probs[0], atol=1e-9)


@pytest.mark.parametrize("member", ["cnn_0", "cnn_1"])
def test_an_image_like_none_seen_goes_past_the_exits(
    bundle_folder: Path, tmp_path: Path, member: str
) -> None:
    """Also where another member than the cascade's first one tells what is like none seen."""
    folder = rebuilt(tmp_path / "a", bundle_folder)
    outputs = Runtime(load_bundle(folder)).network_outputs(0, 0, np.zeros((1, 16, 16, 3), np.uint8))
    far = np.zeros((1, outputs[1].shape[1]), np.float32)
    far[0, 0] = -1  # features come out of a ReLU: nothing lies near this
    write_reference(folder / "novelty.safetensors", Reference(far, 1))
    novelty = Novelty(
        member=member,
        network=0,
        reference_file="novelty.safetensors",
        k=1,
        threshold=0.1,
        flagged_held_back=0.02,
        measured=[],
    )
    changes: dict[str, Any] = {"cascade": cascade(0.0, 1e-9), "out_of_distribution": novelty}
    panel = panel_of(rebuilt(tmp_path / "b", folder, sealed=True, survivors=ALONE, **changes))
    [verdict] = panel.judge([prepared(panel)], None)
    assert verdict.novel
    assert list(verdict.member_probs) == ["cnn_0", "cnn_1"]


def test_who_answers_an_image_decides_by_their_own_threshold(
    bundle_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a member is lost by another thread while this one scores."""
    panel = panel_of(rebuilt(tmp_path / "b", bundle_folder, survivors=ALONE))
    whole = panel._runtime.ask

    def ask(index: int, pixels: Any) -> Any:
        panel._lose("cnn_1", "another thread met it")
        return whole(index, pixels)

    monkeypatch.setattr(panel._runtime, "ask", ask)
    [before] = panel.judge([prepared(panel)], "balanced")
    [after] = panel.judge([prepared(panel)], "balanced")
    assert (len(before.member_probs), len(after.member_probs)) == (2, 1)
    assert before.point is not None
    assert after.point is not None
    assert (before.point.threshold, after.point.threshold) == (0.5, 0.6)
    assert (before.degraded is None, after.degraded is None) == (True, False)
