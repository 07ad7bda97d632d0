"""The figure of images made worse on purpose."""

import pytest

from ensemble.evaluation.results import Corrupted
from ensemble.pages.robustness import corruption_figure, kinds_of
from tests.ensemble.pages.stories import est


def worse(kind: str, severity: int, value: float | None) -> Corrupted:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.2)
    return Corrupted(kind=kind, severity=severity, n=9, metrics={"auroc": est(value, low, high)})


ROWS = [
    worse("none", 0, 0.7),
    worse("blur", 2, 0.5),
    worse("blur", 1, 0.6),
    worse("noise", 1, None),
]


def test_every_kind_starts_from_the_images_as_they_are() -> None:
    blur, noise = corruption_figure(ROWS, "auroc").data
    assert (list(blur.y), list(noise.y)) == ([0.7, 0.6, 0.5], [0.7])
    assert blur.x[0] == noise.x[0] == 0
    assert list(blur.x) == pytest.approx([0, 1, 2], abs=0.1)
    assert kinds_of(ROWS) == ["blur", "noise"]


def test_bars_reach_to_the_ends_of_the_interval() -> None:
    blur = corruption_figure(ROWS, "auroc").data[0]
    assert list(blur.error_y.array) == pytest.approx([0.2] * 3)
    assert list(blur.error_y.arrayminus) == pytest.approx([0.1] * 3)


def test_a_metric_that_was_not_measured_has_no_marks() -> None:
    assert all(len(line.x) == 0 for line in corruption_figure(ROWS, "nll").data)
