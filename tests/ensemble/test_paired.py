"""Linked images make a mean no surer."""

import numpy as np
import pytest

from ensemble.paired import clustered_error


def test_the_standard_error_of_single_images_is_the_usual_one() -> None:
    difference = np.random.default_rng(0).normal(size=50)
    expected = difference.std(ddof=1) / np.sqrt(50)
    assert clustered_error(difference, np.arange(50)) == pytest.approx(expected)


def test_images_twice_in_a_group_tell_no_more_than_once() -> None:
    difference = np.random.default_rng(0).normal(size=50)
    once = clustered_error(difference, np.arange(50))
    assert clustered_error(np.tile(difference, 2), np.tile(np.arange(50), 2)) == pytest.approx(once)


def test_of_one_group_nothing_is_known() -> None:
    assert clustered_error(np.full(5, -0.25), np.zeros(5, np.int64)) == 0.25
