"""Members are the best candidates, as many as help."""

import numpy as np

from ensemble.select import select_top

LABELS = np.array([0, 0, 1, 1])
RIGHT = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.1, 0.9]])
WRONG = RIGHT[::-1]
FIRST_HALF = np.array([[0.95, 0.05], [0.95, 0.05], [0.45, 0.55], [0.45, 0.55]])
SECOND_HALF = np.array([[0.55, 0.45], [0.55, 0.45], [0.05, 0.95], [0.05, 0.95]])


def test_a_useless_candidate_gets_no_weight() -> None:
    weights = select_top(np.stack([WRONG, RIGHT]), LABELS, members=5)
    assert weights.tolist() == [0.0, 1.0]


def test_candidates_that_complete_each_other_are_both_asked() -> None:
    weights = select_top(np.stack([FIRST_HALF, WRONG, SECOND_HALF]), LABELS, members=5)
    assert weights.tolist() == [0.5, 0.0, 0.5]


def test_no_more_members_than_allowed() -> None:
    weights = select_top(np.stack([FIRST_HALF, SECOND_HALF]), LABELS, members=1)
    assert sorted(weights.tolist()) == [0.0, 1.0]


def test_a_copy_adds_nothing_and_is_left_out() -> None:
    weights = select_top(np.stack([RIGHT, RIGHT]), LABELS, members=2)
    assert weights.tolist() == [1.0, 0.0]
