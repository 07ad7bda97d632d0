"""Distance to the training data."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ensemble import novelty
from ensemble.novelty import (
    Reference,
    build_reference,
    measure,
    read_reference,
    threshold_for,
    write_reference,
)
from search.errors import BundleError

AXES = np.eye(3, dtype=np.float32)


def _features(n: int, *, seed: int = 0, towards: int = 0) -> NDArray[np.float32]:
    """Directions around one axis of eight dimensions."""
    noise = 0.2 * np.random.default_rng(seed).standard_normal((n, 8))
    noise[:, towards] += 1
    return noise.astype(np.float32)


def test_the_distance_is_that_of_the_kth_nearest_row() -> None:
    rows = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    found = [Reference(rows, k).distances(np.array([[5.0, 0.0]]))[0] for k in (1, 2, 3)]
    assert found == pytest.approx([0, np.sqrt(2), 2], abs=1e-6)


def test_distances_equal_the_plain_ones_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = build_reference(_features(30), k=4)
    asked = _features(17, seed=1)
    unit = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    plain = np.sort(np.linalg.norm(unit[:, None] - reference.rows[None], axis=2), axis=1)[:, 3]
    monkeypatch.setattr(novelty, "BATCH", 5)
    np.testing.assert_allclose(reference.distances(asked), plain, atol=1e-5)


@given(st.floats(1e-3, 1e3))
def test_the_length_of_features_does_not_matter(scale: float) -> None:
    reference, asked = build_reference(_features(20), k=3), _features(5, seed=2)
    np.testing.assert_allclose(
        reference.distances(asked * scale), reference.distances(asked), atol=1e-5
    )


def test_features_that_are_no_numbers_are_infinitely_far() -> None:
    asked = np.array([[1, 0, 0], [np.nan, 0, 0], [np.inf, 0, 0], [0, 0, 0]], np.float32)
    found = Reference(AXES, 1).distances(asked)
    assert found.tolist() == [0, np.inf, np.inf, 1]


def test_features_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be \(m, 3\), the shape is \(2, 4\)"):
        Reference(AXES, 1).distances(np.ones((2, 4)))


@pytest.mark.parametrize(
    ("rows", "k", "rule"),
    [
        (AXES, 0, r"k must be 1 to 3, it is 0"),
        (AXES, 4, r"k must be 1 to 3, it is 4"),
        (AXES[:0], 1, r"the shape is \(0, 3\)"),
        (AXES[0], 1, r"the shape is \(3,\)"),
        (AXES * np.nan, 1, r"finite and of length 1"),
        (AXES * 2, 1, r"finite and of length 1"),
    ],
)
def test_a_reference_that_cannot_be_is_refused(
    rows: NDArray[np.float32], k: int, rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        Reference(rows, k)


def test_a_reference_is_a_seeded_part_of_unit_length() -> None:
    features = _features(50)
    one, again, other = (build_reference(features, limit=20, seed=s) for s in (1, 1, 2))
    assert one.rows.shape == (20, 8)
    np.testing.assert_array_equal(one.rows, again.rows)
    assert not np.array_equal(one.rows, other.rows)
    np.testing.assert_allclose(np.linalg.norm(one.rows, axis=1), 1, atol=1e-3)


def test_of_few_images_the_farthest_neighbour_counts() -> None:
    assert build_reference(_features(4), k=10).k == 4


def test_images_without_finite_features_are_left_out() -> None:
    features = _features(5)
    features[2, 0] = np.nan
    assert len(build_reference(features).rows) == 4
    with pytest.raises(ValueError, match=r"no image has finite features"):
        build_reference(np.full((2, 3), np.nan))


@given(st.integers(1, 300), st.floats(0.01, 0.4))
def test_at_most_the_share_of_held_back_images_is_flagged(n: int, flagged: float) -> None:
    distances = np.random.default_rng(n).uniform(0, 2, n)
    assert (distances > threshold_for(distances, flagged)).mean() <= flagged


def test_a_new_image_is_flagged_with_at_most_the_chance_asked_for() -> None:
    rng = np.random.default_rng(0)
    thresholds = [threshold_for(rng.uniform(0, 1, 100), 0.05) for _ in range(2000)]
    # Of uniform distances, a new one is above with the chance 1 - threshold, 1 - 96 / 101 in the
    # mean; with the plain rank, 100 (1 - 0.05), it would be 1 - 95 / 101, more than was asked for.
    assert 1 - np.mean(thresholds) == pytest.approx(1 - 96 / 101, abs=0.002)


def test_the_rank_is_not_moved_by_rounding() -> None:
    assert threshold_for(np.arange(1.0, 99), 0.02) == 98  # 99 times 0.98 is 97.02
    assert threshold_for(np.arange(1.0, 100), 0.02) == 98
    assert threshold_for(np.arange(1.0, 125), 0.176) == 103


def test_too_few_held_back_images_give_their_largest() -> None:
    assert threshold_for(np.array([0.3, 0.9, 0.5]), 0.02) == 0.9


def test_a_threshold_from_the_reference_itself_would_flag_too_many() -> None:
    features, fresh = _features(60), _features(400, seed=5)
    reference = build_reference(features, k=1)
    own = threshold_for(reference.distances(features), 0.05)
    held_back = threshold_for(reference.distances(_features(200, seed=4)), 0.05)
    assert (reference.distances(fresh) > own).mean() > 0.5
    assert (reference.distances(fresh) > held_back).mean() < 0.1


def test_no_threshold_comes_from_nothing() -> None:
    with pytest.raises(ValueError, match=r"at least one; there are 0"):
        threshold_for(np.zeros(0), 0.02)
    with pytest.raises(ValueError, match=r"must be finite"):
        threshold_for(np.array([0.1, np.inf]), 0.02)
    with pytest.raises(ValueError, match=r"between 0 and 1, it is 2"):
        threshold_for(np.ones(3), 2)


def test_what_is_far_is_told_and_what_is_alike_is_not() -> None:
    reference = build_reference(_features(100), k=5)
    inside = reference.distances(_features(100, seed=1))
    threshold = threshold_for(inside, 0.05)
    others = {
        "far": reference.distances(_features(50, seed=2, towards=3)),
        "alike": reference.distances(_features(50, seed=3)),
    }
    far, alike = measure(others, inside, threshold)
    assert (far.kind, far.n, far.auroc, far.flagged) == ("far", 50, 1, 1)
    assert 0.35 < alike.auroc < 0.65
    assert alike.flagged < 0.2


def test_ties_count_half_and_infinite_distances_are_the_farthest() -> None:
    (tied,) = measure({"same": np.ones(4)}, np.ones(6), 1.0)
    assert (tied.auroc, tied.flagged) == (0.5, 0)
    (broken,) = measure({"broken": np.full(2, np.inf)}, np.ones(3), 1.0)
    assert (broken.auroc, broken.flagged) == (1, 1)


def test_a_reference_comes_back_exactly(tmp_path: Path) -> None:
    reference, path = build_reference(_features(30), k=3), tmp_path / "novelty.safetensors"
    write_reference(path, reference)
    back = read_reference(path, k=3)
    np.testing.assert_array_equal(back.rows, reference.rows)
    assert back.rows.dtype == np.float32
    assert back.k == 3
    assert path.stat().st_size < 30 * 8 * 2 + 200


def test_a_file_that_is_no_reference_is_named(tmp_path: Path) -> None:
    path = tmp_path / "novelty.safetensors"
    rule = r"novelty\.safetensors: no reference of this bundle; build the bundle again"
    with pytest.raises(BundleError, match=rule):
        read_reference(path, k=1)
    for content in ({"other": AXES}, {"reference": AXES[0]}, {"reference": AXES + np.inf}):
        save_file({name: value.astype(np.float16) for name, value in content.items()}, path)
        with pytest.raises(BundleError, match=rule):
            read_reference(path, k=1)
    path.write_bytes(b"damaged")
    with pytest.raises(BundleError, match=rule):
        read_reference(path, k=1)
    write_reference(path, Reference(AXES, 1))
    with pytest.raises(BundleError, match=rule):
        read_reference(path, k=4)
