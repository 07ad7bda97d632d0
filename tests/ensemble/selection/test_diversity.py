"""How alike two candidates are."""

import numpy as np
import pytest

from ensemble.selection.diversity import pairs
from tests.ensemble.selection.simulated import simulated

LABELS = np.array([0, 0, 1, 1])
RIGHT = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
UNSURE = np.array([[0.4, 0.6], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
FLAT = np.full((4, 2), 0.5)


def test_disagreement_is_the_share_of_other_most_probable_classes() -> None:
    [pair] = pairs(np.stack([RIGHT, UNSURE]), LABELS)
    assert (pair.first, pair.second) == (0, 1)
    assert pair.disagreement == 0.25
    assert not pair.near_copy


def test_the_correlation_is_that_of_the_errors() -> None:
    [pair] = pairs(np.stack([RIGHT, UNSURE]), LABELS)
    expected = np.corrcoef([0.1, 0.2, 0.3, 0.1], [0.6, 0.2, 0.3, 0.1])[0, 1]
    assert pair.error_correlation == pytest.approx(expected)


def test_all_pairs_equal_those_counted_one_by_one() -> None:
    probs, labels = simulated([2.0, 1.0, 0.0], n_images=50, n_classes=5)
    for pair in pairs(probs.astype(np.float32), labels):
        a, b = probs[pair.first], probs[pair.second]
        assert pair.disagreement == pytest.approx((a.argmax(1) != b.argmax(1)).mean())
        errors = [1 - p[np.arange(50), labels] for p in (a, b)]
        assert pair.error_correlation == pytest.approx(np.corrcoef(errors)[0, 1], abs=1e-6)


def test_of_equally_probable_classes_the_first_counts() -> None:
    [pair] = pairs(np.stack([FLAT, np.tile([0.6, 0.4], (4, 1))]), LABELS)
    assert pair.disagreement == 0


def test_a_copy_is_called_a_near_copy() -> None:
    probs, labels = simulated([2.0, 1.0])
    nearly = probs[0] * 0.999 + 0.001 / 3
    found = {(p.first, p.second): p for p in pairs(np.stack([*probs, nearly]), labels)}
    assert found[0, 2].near_copy
    assert found[0, 2].error_correlation > 0.999
    assert not found[0, 1].near_copy
    assert not found[1, 2].near_copy


def test_errors_alone_do_not_make_a_copy() -> None:
    """A hair's breadth on the other side of one half flips every decision, at correlation 1."""
    share = np.linspace(0.5, 0.501, 40)
    first, second = (np.stack([s, 1 - s], axis=1) for s in (share, share - 0.0011))
    [pair] = pairs(np.stack([first, second]), np.zeros(40, np.int64))
    assert pair.error_correlation > 0.999
    assert pair.disagreement > 0.9
    assert not pair.near_copy


def test_equal_errors_on_all_images_correlate_with_nothing() -> None:
    [pair] = pairs(np.stack([RIGHT, FLAT]), LABELS)
    assert pair.error_correlation == 0


def test_only_the_named_are_compared() -> None:
    probs, labels = simulated([2.0, 1.0, 0.0, 1.0])
    everyone = {(p.first, p.second): p for p in pairs(probs, labels)}
    assert len(everyone) == 6
    some = pairs(probs, labels, among=[3, 0, 2])
    assert [(p.first, p.second) for p in some] == [(0, 2), (0, 3), (2, 3)]
    for pair in some:
        assert pair.disagreement == everyone[pair.first, pair.second].disagreement


def test_one_candidate_has_no_pair() -> None:
    assert pairs(RIGHT[None], LABELS) == []
