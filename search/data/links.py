"""Which images belong together: equal keys, nearly equal hashes, and what hangs together by them.

Near pairs are found exactly, by the pigeonhole principle: hashes that differ in at most d bits
agree in full on at least one of d + 1 disjoint bands of bits, so only images that share a band are
compared. Where d leaves a band too few bits to tell images apart, everything is compared with
everything: the same search with one band of no bits.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BITS = 256
WORTH = 0.5  # bands are used where they leave at most this share of all comparisons


def hash_words(hashes: Sequence[str]) -> NDArray[np.uint64]:
    """Hexadecimal hashes of 256 bits as words, (n, 4)."""
    content = bytes.fromhex("".join(hashes))
    return np.frombuffer(content, dtype=">u8").astype(np.uint64).reshape(-1, 4)


def near_pairs(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.int64]:
    """All pairs of hashes that differ in at most so many bits.

    Args:
        hashes: (n, 4), 256 bits each.
        distance: 0 to 255 bits.

    Returns:
        (n_pairs, 2) indices i < j, sorted, each pair once.
    """
    n = len(hashes)
    codes = [np.empty(0, dtype=np.int64)]
    for keys in _bands(hashes, distance):
        order = np.argsort(keys, kind="stable")
        ordered = hashes[order]
        for left, right in _candidates(keys[order]):
            differing = np.bitwise_count(ordered[left] ^ ordered[right]).sum(axis=1)
            near = differing <= distance
            i, j = order[left[near]], order[right[near]]
            codes.append(np.minimum(i, j) * n + np.maximum(i, j))
    return np.stack(np.divmod(np.unique(np.concatenate(codes)), max(n, 1)), axis=1)


def key_pairs(keys: Sequence[object | None]) -> NDArray[np.int64]:
    """Consecutive rows that share a key, which chains all rows of a key; None and NaN share none.

    Returns:
        (n_pairs, 2) indices i < j.
    """
    codes, _ = pd.factorize(np.asarray(keys, dtype=object))
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] >= 0]
    same = codes[order[1:]] == codes[order[:-1]]
    return np.stack([order[:-1][same], order[1:][same]], axis=1).astype(np.int64)


def components(n: int, *links: NDArray[np.int64]) -> NDArray[np.int64]:
    """What hangs together by any of the links.

    Args:
        n: nodes, numbered from 0.
        links: (n_pairs, 2) node numbers each.

    Returns:
        (n,) component of each node, numbered by first appearance.
    """
    i, j = np.concatenate([np.empty((0, 2), dtype=np.int64), *links]).T
    graph = coo_array((np.ones(len(i), dtype=bool), (i, j)), shape=(n, n))
    _, labels = connected_components(graph, directed=False)
    numbers: NDArray[np.int64] = pd.factorize(labels)[0].astype(np.int64)
    return numbers


def dataset_links(
    table: pd.DataFrame, facts: pd.DataFrame, near_distance: int
) -> dict[str, NDArray[np.int64]]:
    """Everything that ties images of a dataset together.

    Args:
        table: dataset table, (n_images) rows.
        facts: of the same images in the same order.
        near_distance: bits.

    Returns:
        (n_pairs, 2) row numbers under each of image_id, file, pixels, near, lesion, patient.
        Damaged files have no pixels and no hash, and equal ones (empty, say) are not linked.
    """
    healthy = facts["problem"].isna()
    keys = {
        # A bare number ("7.jpg" in every class folder) counts files; it names no picture.
        "image_id": table["image_id"].where(~table["image_id"].str.fullmatch(r"\d+")),
        "file": facts["file_digest"].where(healthy),
        "pixels": facts["pixel_digest"],
        "lesion": table["lesion"],
        "patient": table["patient"],
    }
    links = {name: key_pairs(column.tolist()) for name, column in keys.items()}
    return links | {"near": _near_links(facts, near_distance)}


def _near_links(facts: pd.DataFrame, distance: int) -> NDArray[np.int64]:
    # One row a picture, then one row a hash: thousands of copies must not make millions of pairs.
    pictures = facts.loc[facts["phash"].notna(), ["pixel_digest", "phash"]]
    pictures = pictures.set_axis(np.flatnonzero(facts["phash"].notna())).drop_duplicates()
    rows = pictures.index.to_numpy()
    unique = pictures.drop_duplicates("phash")
    near = unique.index.to_numpy()[near_pairs(hash_words(unique["phash"].tolist()), distance)]
    return np.concatenate([rows[key_pairs(pictures["phash"].tolist())], near])


def _bands(hashes: NDArray[np.uint64], distance: int) -> Iterator[NDArray[np.uint64]]:
    """One key a hash for each band: of its bits, the first 64."""
    n_bands = distance + 1
    if n_bands * 2.0 ** (-BITS / n_bands) > WORTH:
        yield np.zeros(len(hashes), dtype=np.uint64)
        return
    bits = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8), axis=1)
    for band in range(n_bands):
        # Every n-th bit: neighbouring frequencies are alike, far ones tell more images apart.
        packed = np.packbits(bits[:, band::n_bands][:, :64], axis=1)
        padded = np.zeros((len(hashes), 8), dtype=np.uint8)
        padded[:, : packed.shape[1]] = packed
        yield padded.view(np.uint64).ravel()


def _candidates(keys: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions of equal keys in a sorted array, all pairs, one offset at a time."""
    left = np.arange(len(keys))
    for offset in range(1, len(keys)):
        left = left[left < len(keys) - offset]
        left = left[keys[left] == keys[left + offset]]
        if not len(left):
            return
        yield left, left + offset
