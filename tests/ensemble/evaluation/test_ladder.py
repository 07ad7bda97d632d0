"""Rungs hold the images of equal scores; runs without an event are one."""

import numpy as np

from ensemble.evaluation.ladder import Ladder, curve_areas

SCORE = np.array([0.9, 0.2, 0.7, 0.7, 0.5, 0.4])
EVENTS = np.array([False, False, True, False, False, False])


def test_equal_scores_share_a_rung_and_scores_without_events_run_together() -> None:
    images, events = Ladder(SCORE, EVENTS).climb(np.ones((6, 1)))
    assert images[:, 0].tolist() == [1, 2, 3]
    assert events[:, 0].tolist() == [0, 1, 0]


def test_rungs_count_an_image_as_often_as_it_was_drawn() -> None:
    counts = np.array([[1, 0], [1, 2], [1, 3], [1, 1], [1, 0], [1, 0]], np.float64)
    images, events = Ladder(SCORE, EVENTS).climb(counts)
    assert images[:, 1].tolist() == [0, 4, 2]
    assert events[:, 1].tolist() == [0, 3, 0]


def test_the_areas_of_one_positive_tied_with_a_negative() -> None:
    # Below 0.9, level with 0.7, above three: 3.5 of 5 negatives.
    areas = curve_areas(Ladder(SCORE, EVENTS), np.ones((6, 1)))
    assert areas["auroc"][0] == 0.7
    np.testing.assert_allclose(areas["auprc"], [1 / 3])
    np.testing.assert_allclose(areas["specificity_at_95"], [0.6])
