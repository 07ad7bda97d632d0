"""The losses are torch's where torch has them."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from search.errors import ConfigError
from search.params import Params
from search.training.losses import balanced_weights, build_loss

LOGITS = torch.tensor([[2.0, -1.0], [0.5, 0.3], [-1.0, 1.5], [0.1, 0.0]])
LABELS = torch.tensor([0, 1, 1, 0])
SHARES = F.one_hot(LABELS, 2).float()
WEIGHTS = torch.tensor([0.5, 2.0])


def loss(params: Params, weights: Tensor | None = None) -> Tensor:
    return build_loss(params, weights, 2)(LOGITS, SHARES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing: float) -> None:
    ours = loss(Params(label_smoothing=smoothing))
    torch.testing.assert_close(ours, F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing))


def test_class_weights_are_torchs() -> None:
    torch.testing.assert_close(
        loss(Params(), WEIGHTS), F.cross_entropy(LOGITS, LABELS, weight=WEIGHTS)
    )


def test_bce_of_one_sigmoid_equals_cross_entropy_of_two_classes() -> None:
    torch.testing.assert_close(loss(Params(loss="bce")), loss(Params()))


def test_focal_without_focus_is_cross_entropy() -> None:
    torch.testing.assert_close(loss(Params(loss="focal", focal_gamma=0)), loss(Params()))


def test_focal_looks_away_from_what_is_easy() -> None:
    probs = torch.softmax(LOGITS, 1)[torch.arange(4), LABELS]
    expected = (-((1 - probs) ** 2) * probs.log()).mean()
    torch.testing.assert_close(loss(Params(loss="focal", focal_gamma=2)), expected)


def test_balanced_weights_give_every_class_the_same_say() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    weights = balanced_weights(labels, 2)
    assert weights.tolist() == pytest.approx([2 / 3, 2.0])
    assert weights[labels].sum() == pytest.approx(4)


def test_bce_of_more_than_two_classes_is_refused() -> None:
    with pytest.raises(ConfigError, match="bce needs two classes, there are 7; use cross_entropy"):
        build_loss(Params(loss="bce"), None, 7)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_pieces_of_a_batch_add_up_to_its_mean(weights: Tensor | None) -> None:
    whole = build_loss(Params(label_smoothing=0.1), weights, 2)
    pieces = [(LOGITS[:3], SHARES[:3]), (LOGITS[3:], SHARES[3:]), (LOGITS[:0], SHARES[:0])]
    total = torch.stack([whole.sum(*piece) for piece in pieces]).sum()
    weight = torch.stack([whole.weight(shares) for _, shares in pieces]).sum()
    torch.testing.assert_close(total / weight, whole(LOGITS, SHARES))
