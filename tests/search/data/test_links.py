"""Near hashes, shared keys and connected components."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from search.data.links import components, dataset_links, hash_words, key_pairs, near_pairs

ZERO = np.zeros(4, dtype=np.uint64)


def flipped(*bits: int) -> NDArray[np.uint64]:
    """The zero hash with some bits set."""
    words = ZERO.copy()
    for bit in bits:
        words[bit // 64] |= np.uint64(1) << np.uint64(bit % 64)
    return words


def every_pair(hashes: NDArray[np.uint64], distance: int) -> list[list[int]]:
    """What near_pairs must find, the slow way."""
    return [
        [i, j]
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
        if sum(int(a ^ b).bit_count() for a, b in zip(hashes[i], hashes[j], strict=True))
        <= distance
    ]


def test_hexadecimal_hashes_become_words_most_significant_first() -> None:
    words = hash_words(["0" * 15 + "1" + "f" * 16 + "0" * 32])
    assert words.tolist() == [[1, 2**64 - 1, 0, 0]]


def test_no_hashes_become_no_words() -> None:
    assert hash_words([]).shape == (0, 4)


def test_the_distance_itself_is_near_and_one_bit_more_is_not() -> None:
    hashes = np.stack([ZERO, flipped(0, 100, 255), flipped(0, 100, 200, 255)])
    assert near_pairs(hashes, 3).tolist() == [[0, 1], [1, 2]]


def test_distance_zero_finds_equal_hashes_only() -> None:
    # The last differs beyond the 64 bits that a band's key holds.
    hashes = np.stack([flipped(7), ZERO, flipped(7), flipped(7, 255)])
    assert near_pairs(hashes, 0).tolist() == [[0, 2]]


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_hashes_make_no_pair(n: int) -> None:
    assert near_pairs(np.zeros((n, 4), dtype=np.uint64), 12).shape == (0, 2)


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1, 2, 3, 12, 28, 40, 64, 255]),
    st.integers(2, 25),
)
def test_bands_find_exactly_the_pairs_that_a_full_search_finds(
    seed: int, distance: int, n: int
) -> None:
    rng = np.random.default_rng(seed)
    hashes = np.stack([ZERO] * n)
    for row in hashes:  # about the distance away from one another
        row[:] = flipped(*rng.choice(256, size=rng.integers(0, distance + 1), replace=False))
    assert near_pairs(hashes, distance).tolist() == every_pair(hashes, distance)


def test_missing_keys_tie_nothing_together() -> None:
    assert key_pairs([None, "a", None, float("nan"), "b", "a", "a"]).tolist() == [[1, 5], [5, 6]]


def test_no_keys_make_no_pair() -> None:
    assert key_pairs([]).shape == (0, 2)


def test_components_are_numbered_by_first_appearance() -> None:
    assert components(5, np.array([[1, 4]]), np.array([[4, 2]])).tolist() == [0, 1, 1, 2, 1]


def test_without_links_every_node_stands_alone() -> None:
    assert components(3).tolist() == [0, 1, 2]
    assert components(0).tolist() == []


@given(st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=20))
def test_components_of_key_pairs_are_the_keys(keys: list[int | None]) -> None:
    found = components(len(keys), key_pairs(keys))
    for i, a in enumerate(keys):
        for j, b in enumerate(keys):
            assert (found[i] == found[j]) == (i == j or (a is not None and a == b))


def test_a_dataset_is_linked_by_every_kind_of_tie() -> None:
    table = pd.DataFrame(
        {
            "image_id": ["a", "a", "b", "c", "d", "e"],
            "lesion": [None, None, "L", "L", None, None],
            "patient": ["P", None, None, None, None, "P"],
        }
    )
    near = "0" * 63
    facts = pd.DataFrame(
        {
            "problem": [None, None, None, None, "zero-byte", "zero-byte"],
            "file_digest": ["f", "f", "g", "h", "z", "z"],
            "pixel_digest": ["p", "p", "p", "q", None, None],
            "phash": [near + "0", near + "0", near + "0", near + "1", None, None],
        }
    )
    links = {name: pairs.tolist() for name, pairs in dataset_links(table, facts, 1).items()}
    assert links == {
        "image_id": [[0, 1]],
        "file": [[0, 1]],
        "pixels": [[0, 1], [1, 2]],
        "lesion": [[2, 3]],
        "patient": [[0, 5]],
        "near": [[0, 3]],
    }


def test_different_pictures_of_one_hash_are_near() -> None:
    table = pd.DataFrame({"image_id": ["a", "b"], "lesion": [None] * 2, "patient": [None] * 2})
    facts = pd.DataFrame(
        {
            "problem": [None, None],
            "file_digest": ["f", "g"],
            "pixel_digest": ["p", "q"],
            "phash": ["0" * 64] * 2,
        }
    )
    assert dataset_links(table, facts, 0)["near"].tolist() == [[0, 1]]


def test_a_bare_number_as_a_file_name_is_no_image_id() -> None:
    table = pd.DataFrame({"image_id": ["7", "7"], "lesion": [None] * 2, "patient": [None] * 2})
    facts = pd.DataFrame(
        {
            "problem": [None] * 2,
            "file_digest": ["a", "b"],
            "pixel_digest": ["a", "b"],
            "phash": [None] * 2,
        }
    )
    assert len(dataset_links(table, facts, 0)["image_id"]) == 0
