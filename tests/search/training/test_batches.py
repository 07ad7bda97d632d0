"""A pass shows every image once, or as often as its class is rare."""

import numpy as np
import pytest
import torch

from search.params import Params
from search.training.batches import Batches, Fold

SIZE = 16
NONE = np.empty(0, np.int64)


def a_fold(labels: list[int]) -> Fold:
    """Image i is filled with i."""
    n = len(labels)
    pixels = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, SIZE, SIZE, 3))
    return Fold(pixels, np.arange(n), np.array(labels), NONE, NONE)


def some_batches(labels: list[int], **changes: object) -> Batches:
    params = Params.model_validate({"image_size": SIZE, "batch_size": 4, **changes})
    return Batches(a_fold(labels), params, 2, seed=0)


def seen(batches: Batches) -> list[int]:
    return [int(image[0, 0, 0]) for images, _ in batches for image in images]


def test_every_image_comes_once_in_another_order_each_time() -> None:
    batches = some_batches([0, 1] * 5)
    first, second = seen(batches), seen(batches)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_shares_are_those_of_the_images() -> None:
    labels = [0, 1, 1, 0, 1]
    for images, shares in some_batches(labels):
        expected = [labels[int(image[0, 0, 0])] for image in images]
        assert shares.argmax(dim=1).tolist() == expected
        assert shares.sum(dim=1).tolist() == [1] * len(images)


@pytest.mark.parametrize(("n", "sizes"), [(8, [4, 4]), (9, [4, 4]), (10, [4, 4, 2]), (1, [1])])
def test_an_image_left_alone_sits_out_a_pass(n: int, sizes: list[int]) -> None:
    batches = some_batches([0] * n)
    assert [len(images) for images, _ in batches] == sizes
    assert len(batches) == len(sizes)


def test_a_balanced_sampler_shows_the_rare_class_as_often() -> None:
    labels = [1] * 20 + [0] * 180
    batches = some_batches(labels, balance="sampler")
    share = np.mean([index < 20 for _ in range(5) for index in seen(batches)])
    assert share == pytest.approx(0.5, abs=0.06)


def test_mixup_mixes_images_as_it_mixes_shares() -> None:
    np.random.seed(0)
    batches = some_batches([0, 1], mixup=1.0)
    x = torch.stack(
        [torch.zeros(3, SIZE, SIZE), torch.ones(3, SIZE, SIZE), torch.ones(3, SIZE, SIZE)]
    )
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    mixed, targets = batches.mix(x.clone(), shares)
    torch.testing.assert_close(mixed[:, 0, 0, 0], targets[:, 1])
    assert 0 < targets[0, 1] < 1
    assert targets[2].tolist() == [0, 1]


def test_without_mixup_nothing_is_mixed() -> None:
    x, shares = torch.ones(2, 3, SIZE, SIZE), torch.eye(2)
    mixed, targets = some_batches([0, 1]).mix(x, shares)
    assert mixed is x
    assert targets is shares
