"""Prior shift: the true posteriors of another place, and shares that are named in part."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from ensemble.decision.prevalence import prevalence_of, shift_prevalence
from search.errors import ConfigError

Floats = NDArray[np.float64]

CLASSES = ["mel", "nev", "bkl"]
STORED = {"mel": 0.2, "nev": 0.6, "bkl": 0.2}
SHARES = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda v: np.array(v) / sum(v))


@given(SHARES, SHARES)
def test_the_same_prevalence_changes_nothing(row: Floats, shares: Floats) -> None:
    assert shift_prevalence(row[None], shares, shares) == pytest.approx(row[None])


@given(SHARES, SHARES, SHARES)
def test_there_and_back_is_nowhere(row: Floats, old: Floats, new: Floats) -> None:
    there = shift_prevalence(row[None], old, new)
    assert there.sum() == pytest.approx(1)
    assert shift_prevalence(there, new, old) == pytest.approx(row[None])


def test_shifted_probabilities_are_the_true_ones_of_the_other_place() -> None:
    rng = np.random.default_rng(0)
    means, old, new = (
        np.array([0.0, 1.5, 3.0]),
        np.array([0.5, 0.3, 0.2]),
        np.array([0.1, 0.1, 0.8]),
    )
    labels = rng.choice(3, 10_000, p=new)
    x = rng.normal(means[labels])
    density = norm.pdf(x[:, None], means)
    posterior = density * old
    shifted = shift_prevalence(posterior / posterior.sum(axis=1, keepdims=True), old, new)
    truth = density * new
    assert shifted == pytest.approx(truth / truth.sum(axis=1, keepdims=True))
    for k in range(3):  # and so they are calibrated there: three standard errors of a share
        likely = shifted[:, k] > 0.3
        error = 3 * 0.5 / np.sqrt(likely.sum())
        assert (labels[likely] == k).mean() == pytest.approx(shifted[likely, k].mean(), abs=error)


def test_a_class_that_occurs_nowhere_keeps_its_odds() -> None:
    old, new = np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.5, 0.0])
    assert shift_prevalence(np.array([[0.5, 0.3, 0.2]]), old, new).tolist() == [[0.5, 0.3, 0.2]]


def test_shares_that_do_not_fit_are_refused() -> None:
    row = np.array([[0.5, 0.5]])
    with pytest.raises(ValueError, match="shapes do not fit"):
        shift_prevalence(row, np.array([1.0]), np.array([1.0]))
    with pytest.raises(ValueError, match="0 in one place"):
        shift_prevalence(row, np.array([1.0, 0.0]), np.array([0.5, 0.5]))


def test_classes_that_are_not_named_share_the_rest_as_before() -> None:
    assert prevalence_of(CLASSES, STORED, {"mel": 0.02}).tolist() == pytest.approx(
        [0.02, 0.735, 0.245]
    )


def test_none_named_and_all_named_are_taken_as_they_are() -> None:
    assert prevalence_of(CLASSES, STORED, {}).tolist() == pytest.approx([0.2, 0.6, 0.2])
    named = {"bkl": 0.1, "mel": 0.3, "nev": 0.6}
    assert prevalence_of(CLASSES, STORED, named).tolist() == pytest.approx([0.3, 0.6, 0.1])


def test_a_class_that_was_never_held_back_takes_no_share_of_the_rest() -> None:
    stored = {"mel": 0.25, "nev": 0.75, "bkl": 0.0}
    assert prevalence_of(CLASSES, stored, {"mel": 0.1}).tolist() == pytest.approx([0.1, 0.9, 0])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"wart": 0.1}, r"no class 'wart'; name some of mel, nev, bkl"),
        ({"mel": 0.0}, r"mel is 0; give a share between 0 and 1"),
        ({"mel": 1.0}, r"mel is 1; give"),
        ({"mel": float("nan")}, r"mel is nan; give"),
        ({"mel": 0.7, "nev": 0.6}, r"sum to 1\.3 and leave nothing for bkl"),
        ({"mel": 0.4, "nev": 0.6}, r"sum to 1 and leave nothing for bkl"),
        ({"mel": 0.2, "nev": 0.2, "bkl": 0.2}, r"sum to 0\.6; make them sum to 1"),
    ],
)
def test_shares_that_make_no_sense_are_refused(wanted: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prevalence_of(CLASSES, STORED, wanted)


def test_a_class_that_was_never_held_back_cannot_be_named() -> None:
    with pytest.raises(ConfigError, match="bkl has no held-back case"):
        prevalence_of(CLASSES, {"mel": 0.25, "nev": 0.75, "bkl": 0.0}, {"bkl": 0.1})
