"""Views of an image, and which of them are worth their time."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.config import Views
from ensemble.views import N_VIEWS, choose_views, view_pixels
from search.training.metrics import nll

L = np.array([[9, 0, 0], [9, 0, 0], [9, 9, 0]], np.uint8)  # no two of its eight views are alike
PIXELS = np.repeat(L[None, :, :, None], 3, axis=3)
LABELS = np.array([0, 1] * 20)
GROUPS = np.arange(40)


def _probs(right: float) -> np.ndarray:
    """Probabilities that give the label `right`, a little more or less by image."""
    own = right + 0.01 * np.sin(GROUPS)
    return np.stack([np.where(LABELS == 0, own, 1 - own), np.where(LABELS == 1, own, 1 - own)], 1)


def test_every_kind_of_views_has_its_number() -> None:
    assert set(N_VIEWS) == set(get_args(Views))
    for views, number in N_VIEWS.items():
        assert len(view_pixels(PIXELS, views)) == number


def test_flips_are_the_image_left_right_up_down_and_both() -> None:
    found = [view[0, :, :, 0].tolist() for view in view_pixels(PIXELS, "flips")]
    assert found[0] == L.tolist()
    assert found[1] == [row[::-1] for row in L.tolist()]
    assert found[2] == L.tolist()[::-1]
    assert found[3] == np.rot90(L, 2).tolist()


def test_the_dihedral_views_are_the_eight_of_the_square() -> None:
    found = {view.tobytes() for view in view_pixels(PIXELS, "dihedral")}
    turned = [np.rot90(square, n) for square in (L, L.T) for n in range(4)]
    expected = {np.repeat(t[None, :, :, None], 3, axis=3).tobytes() for t in turned}
    assert found == expected
    assert len(found) == 8


@given(st.integers(1, 3), st.integers(1, 5), st.sampled_from(get_args(Views)))
def test_views_are_contiguous_pixels_of_the_same_images(n: int, side: int, views: Views) -> None:
    pixels = np.random.default_rng(n * side).integers(0, 256, (n, side, side, 3), np.uint8)
    for view in view_pixels(pixels, views):
        assert view.flags.c_contiguous
        assert (view.shape, view.dtype) == (pixels.shape, pixels.dtype)
        for one, other in zip(view, pixels, strict=True):  # no channel, no image moves to another
            np.testing.assert_array_equal(
                np.sort(one.reshape(-1, 3), axis=0), np.sort(other.reshape(-1, 3), axis=0)
            )


def test_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, size, size, 3\), the shape is \(1, 2, 3, 3\)"):
        view_pixels(np.zeros((1, 2, 3, 3), np.uint8), "flips")


def test_views_that_are_clearly_better_are_chosen() -> None:
    probs = {"none": _probs(0.6), "flips": _probs(0.8), "dihedral": _probs(0.7)}
    chosen, worth = choose_views(probs, LABELS, GROUPS)  # type: ignore[arg-type]
    assert chosen == "flips"
    assert [one.chosen for one in worth] == [False, True, False]
    assert [one.cost for one in worth] == [1, 4, 8]
    assert worth[0].nll == pytest.approx(nll(_probs(0.6), LABELS))
    assert worth[0].difference == pytest.approx(worth[0].nll - worth[1].nll)
    assert (worth[1].difference, worth[1].standard_error) == (0, 0)


def test_of_views_within_one_standard_error_the_simplest_is_chosen() -> None:
    better = _probs(0.8)
    better[:20] = _probs(0.9)[:20]
    better[20:] = _probs(0.72)[20:]  # a little better on average, and far from always
    assert nll(better, LABELS) < nll(_probs(0.8), LABELS)
    chosen, worth = choose_views({"none": _probs(0.8), "dihedral": better}, LABELS, GROUPS)
    assert chosen == "none"
    assert 0 < worth[0].difference <= worth[0].standard_error


def test_the_standard_error_is_that_of_the_mean_where_each_image_is_a_group() -> None:
    first, second = _probs(0.6), _probs(0.8)
    _, worth = choose_views({"none": first, "flips": second}, LABELS, GROUPS)
    rows = np.arange(40)
    paired = np.log(second[rows, LABELS]) - np.log(first[rows, LABELS])
    assert worth[0].standard_error == pytest.approx(paired.std(ddof=1) / np.sqrt(40))


def test_copies_of_an_image_do_not_shrink_the_standard_error() -> None:
    first, second = _probs(0.6), _probs(0.8)
    _, once = choose_views({"none": first, "flips": second}, LABELS, GROUPS)
    thrice = [np.repeat(part, 3, axis=0) for part in (first, second, LABELS, GROUPS)]
    _, copied = choose_views({"none": thrice[0], "flips": thrice[1]}, thrice[2], thrice[3])
    assert copied[0].standard_error == pytest.approx(once[0].standard_error)


def test_of_one_group_alone_the_simplest_is_chosen() -> None:
    probs = {"none": _probs(0.6), "flips": _probs(0.8)}
    chosen, _ = choose_views(probs, LABELS, np.zeros(40))  # type: ignore[arg-type]
    assert chosen == "none"


def test_probs_of_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"39 rows of probs for 40 labels"):
        choose_views({"none": _probs(0.6)[:39]}, LABELS, GROUPS)
    with pytest.raises(ValueError, match=r"no views to choose from"):
        choose_views({}, LABELS, GROUPS)
    with pytest.raises(ValueError, match=r"probs must be finite"):
        choose_views({"none": np.full((40, 2), np.nan)}, LABELS, GROUPS)
