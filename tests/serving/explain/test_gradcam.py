from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from timm.models.mlp_mixer import MlpMixer
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from search.errors import BundleError, ServingError
from search.training.backbones import Classifier
from serving.explain.gradcam import explain_network, find_layer, log_odds
from tests.serving.explain.networks import (
    PREPROCESSING,
    a_classifier,
    discs,
    output_of,
    small_classifier,
    train_on_discs,
)

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
# Steps and rate after which each finds the discs; a step is 16 images.
LESSONS = {"cnn": (10, 1e-3), "resnet": (20, 3e-3), "vit": (60, 4e-3)}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=LESSONS)
def taught(request: pytest.FixtureRequest, one_thread: None) -> tuple[str, Classifier]:
    """A network that tells whether there is a disc, by its kind."""
    steps, rate = LESSONS[request.param]
    return request.param, train_on_discs(small_classifier(request.param), steps=steps, rate=rate)


def with_discs(count: int) -> list[tuple[NDArray[np.uint8], int]]:
    images, where = discs(2 * count, seed=999)
    return [(image, int(quadrant)) for image, quadrant in zip(images, where, strict=True)][1::2]


def share_in(heat: NDArray[np.float32], quadrant: int) -> float:
    """How much of a map lies in one quadrant."""
    half, (row, column) = len(heat) // 2, divmod(quadrant, 2)
    part = heat[row * half : (row + 1) * half, column * half : (column + 1) * half]
    return float(part.sum() / heat.sum())


def likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Spearman's correlation; 0 where a map is the same everywhere."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one.ravel(), other.ravel()).statistic)


@pytest.mark.parametrize(
    ("backbone", "side"),
    [
        ("cnn", 8),
        ("cnn_batchnorm", 8),
        ("mobilenetv2_035", 2),
        pytest.param("mobilenetv3_small_100", 2, marks=pytest.mark.slow),
        ("resnet18", 2),
        ("efficientnet_b0", 2),
        pytest.param("densenet121", 2, marks=pytest.mark.slow),
        ("convnext_atto", 2),
        pytest.param("vgg16", 2, marks=pytest.mark.slow),
        ("vit_tiny_patch16_224", 4),
    ],
)
def test_every_backbone_gives_a_map_that_differs_from_place_to_place(
    backbone: str, side: int
) -> None:
    classifier = a_classifier(backbone)
    # Untrained, one class may have nothing that speaks for it; not all of them.
    maps = [explain_network(classifier, NOISE, index) for index in range(3)]
    for heat in maps:
        assert heat.shape == (side, side)
        assert heat.dtype == np.float32
        assert heat.min() >= 0
        assert heat.max() in (0, 1)
    assert max(np.ptp(heat) for heat in maps) > 0.1


def test_a_small_image_is_looked_at_where_there_still_is_more_than_one_cell() -> None:
    classifier = a_classifier("resnet18", size=32)  # its last stage has a single cell left
    assert find_layer(classifier, 32) == (classifier.trunk.layer3, None)
    assert explain_network(classifier, NOISE[:32, :32], 0).shape == (2, 2)


def test_maps_with_their_channels_last_are_turned() -> None:
    shape: dict[str, Any] = {"img_size": 64, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trunk = SwinTransformer(num_classes=0, window_size=4, **shape)
        classifier = Classifier(trunk, nn.Linear(16, 2), PREPROCESSING).eval()
    heats = [explain_network(classifier, NOISE, index) for index in (0, 1)]
    assert [heat.shape for heat in heats] == [(8, 8), (8, 8)]
    assert max(np.ptp(heat) for heat in heats) > 0.1


def test_tokens_of_an_unknown_kind_are_refused_rather_than_explained_by_the_first_layer() -> None:
    trunk = MlpMixer(img_size=64, num_blocks=1, embed_dim=8, num_classes=0)
    classifier = Classifier(trunk, nn.Linear(8, 2), PREPROCESSING).eval()
    with pytest.raises(ServingError, match=r"a MlpMixer keeps no map of its image"):
        explain_network(classifier, NOISE, 0)


@pytest.mark.parametrize("quadrant", range(4))
def test_a_head_that_looks_at_one_quadrant_lights_up_that_one_only(quadrant: int) -> None:
    classifier = a_classifier("cnn")
    row, column = divmod(quadrant, 2)
    seen = torch.zeros(128, 4, 4)
    seen[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = 1
    output = output_of(classifier)
    with torch.no_grad():
        output.weight.zero_()[1] = seen.flatten()
    heat = explain_network(classifier, NOISE, 1)
    assert heat.max() == 1
    assert share_in(heat, quadrant) == pytest.approx(1)


def test_an_image_in_which_nothing_speaks_for_the_class_gives_zeros() -> None:
    classifier = a_classifier("cnn")
    with torch.no_grad():
        output_of(classifier).weight.zero_()[1] = -1  # features are never negative
    assert not explain_network(classifier, NOISE, 1).any()


def test_the_map_of_a_taught_network_lies_where_the_disc_is(taught: tuple[str, Classifier]) -> None:
    _, classifier = taught
    for image, quadrant in with_discs(8):
        assert share_in(explain_network(classifier, image, 1), quadrant) > 0.8


def test_maps_follow_what_was_learnt_and_not_the_image_alone(
    taught: tuple[str, Classifier],
) -> None:
    """Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018: randomised weights."""
    kind, classifier = taught
    forgot = [small_classifier(kind, seed=seed) for seed in (1, 2, 3)]
    alike = []
    for image, _ in with_discs(6):
        heat = explain_network(classifier, image, 1)
        assert likeness(heat, explain_network(classifier, image, 1)) == pytest.approx(1)
        alike += [likeness(heat, explain_network(other, image, 1)) for other in forgot]
    assert abs(np.mean(alike)) < 0.3
    assert np.mean(np.abs(alike)) < 0.4


def test_odds_are_those_of_the_softmax() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 30.0, 1.0]], dtype=torch.float64)
    probs = torch.softmax(logits, dim=1)[:, 2]
    torch.testing.assert_close(log_odds(logits, 2), torch.log(probs / (1 - probs)))


def test_a_shift_that_all_outputs_share_changes_no_map() -> None:
    classifier = a_classifier("cnn")
    before = explain_network(classifier, NOISE, 1)
    shift = torch.randn(2048, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output_of(classifier).weight.add_(shift)
    np.testing.assert_allclose(explain_network(classifier, NOISE, 1), before, atol=1e-4)


@pytest.mark.parametrize("backbone", ["cnn", "vit_tiny_patch16_224"])
def test_nothing_is_left_behind(backbone: str) -> None:
    classifier = a_classifier(backbone).requires_grad_(False)
    weights = {name: value.clone() for name, value in classifier.state_dict().items()}
    state = torch.get_num_threads(), torch.get_rng_state()
    with torch.no_grad():
        assert explain_network(classifier, NOISE, 1).any()
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        explain_network(classifier, NOISE, 1)
    assert not any(module._forward_hooks for module in classifier.modules())
    assert torch.get_num_threads() == state[0]
    assert torch.equal(torch.get_rng_state(), state[1])
    for name, value in classifier.state_dict().items():
        assert torch.equal(value, weights[name])
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_a_network_of_nan_is_refused() -> None:
    classifier = a_classifier("cnn")
    with torch.no_grad():
        output_of(classifier).weight.fill_(float("nan"))
    with pytest.raises(BundleError, match=r"gradient is NaN"):
        explain_network(classifier, NOISE, 1)


def test_other_plain_transformers_have_what_the_rule_asks_for() -> None:
    with torch.device("meta"):
        for name in ("beit_base_patch16_224", "eva02_tiny_patch14_224"):
            trunk: Any = timm.create_model(name, num_classes=0)
            layer, window = find_layer(Classifier(trunk, nn.Identity(), PREPROCESSING), 224)
            assert layer is trunk.blocks[-1].norm1
            assert window is not None
            tokens = trunk.num_prefix_tokens + np.prod(trunk.patch_embed.grid_size)
            assert window(torch.empty(1, int(tokens), 8)).shape == (1, tokens, 8)
