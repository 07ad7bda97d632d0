"""Classifiers, their weights and what of them trains."""

from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from search.config import WeightsConfig
from search.errors import ConfigError, TrainingError
from search.params import Params
from search.training.backbones import LISTED, OWN, allowed_backbones, build_classifier, freeze
from search.training.backbones import preprocessing_of as preprocessing

NO_WEIGHTS = WeightsConfig()
REAL = Path(__file__).parents[4] / "shared" / "weights"
SMALL = Params(backbone="mobilenetv2_035", image_size=32)
STORED = SMALL.model_copy(update={"weights": "folder"})
CNN = Params(backbone="cnn", image_size=32, hidden=8)
VIT = Params(backbone="vit_tiny_patch16_224", image_size=32)


def built(
    params: Params, n_classes: int = 2, weights: WeightsConfig = NO_WEIGHTS, seed: int | None = None
) -> Any:
    """A classifier whose layers mypy need not know."""
    return build_classifier(params, n_classes, weights, seed=seed)


def images(size: int, n: int = 2) -> torch.Tensor:
    return torch.arange(n * size * size * 3).mul(37).remainder(251).byte().view(n, size, size, 3)


def trainable(classifier: Any) -> set[str]:
    return {name for name, p in classifier.trunk.named_parameters() if p.requires_grad}


def made_file(folder: Path, params: Params, extra: dict[str, torch.Tensor] | None = None) -> Path:
    """Random trunk weights in a file as timm names them."""
    state = built(params, seed=7).trunk.state_dict()
    file = folder / f"{params.backbone}.safetensors"
    save_file({**state, **(extra or {})}, file)
    return file


@pytest.mark.parametrize("backbone", [*OWN, "mobilenetv2_035", "resnet18", VIT.backbone])
def test_pixels_become_one_row_of_logits_an_image(backbone: str) -> None:
    params = Params(backbone=backbone, image_size=32, hidden=8)
    classifier = built(params, 3, NO_WEIGHTS, seed=0).eval()
    with torch.inference_mode():
        logits = classifier(images(32))
        normalised = classifier.normalise(images(32))
        assert classifier.features(normalised).ndim == 2
        torch.testing.assert_close(classifier.classify(normalised), logits)
    assert logits.shape == (2, 3)
    assert classifier.preprocessing == preprocessing(params)


def test_a_new_classifier_is_in_training_mode_throughout() -> None:
    assert all(module.training for module in built(SMALL).modules())


def test_one_seed_gives_the_same_weights_and_leaves_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (built(CNN, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.head[0].weight, again.head[0].weight)
    assert not torch.equal(first.trunk[0].weight, other.trunk[0].weight)


@pytest.mark.parametrize("size", [16, 28, 50, 128])
def test_our_own_cnns_take_any_image_size_at_a_bounded_width(size: int) -> None:
    classifier = built(CNN.model_copy(update={"image_size": size})).eval()
    assert classifier(images(size)).shape == (2, 2)
    assert classifier.head[0].in_features <= 2048


def test_the_head_is_a_dense_layer_only_where_params_ask_for_one() -> None:
    plain = built(SMALL.model_copy(update={"dropout": 0.3}), 4, NO_WEIGHTS)
    dense = built(SMALL.model_copy(update={"hidden": 16}), 4, NO_WEIGHTS)
    assert [type(layer).__name__ for layer in plain.head] == ["Dropout", "Linear"]
    assert plain.head[0].p == 0.3
    assert [type(layer).__name__ for layer in dense.head] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert (dense.head[0].out_features, dense.head[3].out_features) == (16, 4)


def test_a_transformer_takes_another_image_size_and_keeps_its_pretrained_embedding(
    tmp_path: Path,
) -> None:
    native = VIT.model_copy(update={"image_size": 224})
    made = load_file(made_file(tmp_path, native))
    params = VIT.model_copy(update={"weights": "folder"})
    trunk = built(params, 2, WeightsConfig(folder=tmp_path)).trunk
    assert trunk.pos_embed.shape == (1, 2 * 2 + 1, 192)
    torch.testing.assert_close(trunk.pos_embed[:, :1], made["pos_embed"][:, :1])


def test_a_transformer_refuses_a_size_its_patches_do_not_tile() -> None:
    with pytest.raises(ConfigError, match=r"image_size 40: it takes multiples of 16; choose"):
        built(VIT.model_copy(update={"image_size": 40}))


def test_a_size_too_small_for_the_backbone_is_refused() -> None:
    params = Params(backbone="densenet121", image_size=28)
    with pytest.raises(ConfigError, match=r"densenet121 cannot take image_size 28: it is too sm"):
        built(params)


def test_allowed_are_ours_the_list_and_what_the_config_adds() -> None:
    weights = WeightsConfig(allow=["resnet34", "cnn"])
    assert allowed_backbones(weights) == (*OWN, *LISTED, "resnet34")


def test_a_backbone_outside_the_list_needs_to_be_allowed() -> None:
    params = Params(backbone="mobilenetv2_110d", image_size=32)
    with pytest.raises(ConfigError, match=r"'mobilenetv2_110d' is not allowed; allowed are cnn, "):
        built(params)
    assert built(params, 2, WeightsConfig(allow=[params.backbone])).preprocessing.size == 32


@pytest.mark.parametrize("name", ["nope", "hf-hub:a/b", "local-dir:/tmp/x", "resnet50.nope"])
def test_a_name_that_timm_does_not_have_cannot_be_allowed(name: str) -> None:
    with pytest.raises(ConfigError, match=f"timm has no backbone '{name}'"):
        allowed_backbones(WeightsConfig(allow=[name]))


def test_preprocessing_follows_the_params_and_the_backbone() -> None:
    gray = CNN.model_copy(update={"grayscale": True, "colour_constancy": True})
    own, vit = preprocessing(gray), preprocessing(VIT)
    assert (own.size, own.grayscale, own.colour_constancy) == (32, True, True)
    assert own.mean == (0.485, 0.456, 0.406)
    assert vit.mean == vit.std == (0.5, 0.5, 0.5)


def test_weights_come_from_the_folder_without_the_files_classifier(tmp_path: Path) -> None:
    made = load_file(made_file(tmp_path, SMALL, {"classifier.weight": torch.zeros(9, 1280)}))
    classifier = built(STORED, 2, WeightsConfig(folder=tmp_path), seed=1)
    state = classifier.trunk.state_dict()
    assert all(torch.equal(state[name], made[name]) for name in state)


def test_weights_without_a_folder_ask_for_one_except_for_our_own_cnns() -> None:
    built(CNN.model_copy(update={"weights": "folder"}))
    with pytest.raises(ConfigError, match=r"name the folder under weights\.folder"):
        built(STORED)


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"mobilenetv2_035\.safetensors is missing; put"):
        built(STORED, 2, WeightsConfig(folder=tmp_path))


def test_a_file_that_is_no_safetensors_is_named(tmp_path: Path) -> None:
    (tmp_path / "mobilenetv2_035.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(TrainingError, match=r"mobilenetv2_035\.safetensors: not a safetensors"):
        built(STORED, 2, WeightsConfig(folder=tmp_path))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"conv_stem.weight": None}, r"conv_stem\.weight is missing, where .* \(16, 3, 3, 3\)"),
        ({"stranger": torch.zeros(2)}, r"stranger is \(2,\), where timm's backbone has nothing"),
        ({"bn1.bias": torch.zeros(3)}, r"bn1\.bias is \(3,\), where timm's backbone has \(16,\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_their_first_key(
    tmp_path: Path, change: dict[str, torch.Tensor | None], problem: str
) -> None:
    file = made_file(tmp_path, SMALL)
    state = {**load_file(file), **change}
    save_file({name: value for name, value in state.items() if value is not None}, file)
    with pytest.raises(TrainingError, match=rf"mobilenetv2_035\.safetensors: {problem}"):
        built(STORED, 2, WeightsConfig(folder=tmp_path))


def test_without_the_hub_the_error_leads_to_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    params = Params(backbone="resnet18", image_size=32, weights="hub")
    with pytest.raises(TrainingError, match=r"resnet18 from the hub .*use weights: folder") as e:
        built(params)
    assert "\n" not in str(e.value)


def test_a_backbone_the_hub_does_not_have_says_so() -> None:
    with pytest.raises(TrainingError, match=r"the hub has no weights for mobilenetv2_035; use"):
        built(SMALL.model_copy(update={"weights": "hub"}))


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the pretrained weights of ../shared/weights")
@pytest.mark.parametrize("backbone", ["mobilenetv2_035", "mobilenetv2_100"])
def test_the_real_pretrained_weights_load(backbone: str) -> None:
    params = Params(backbone=backbone, image_size=32, weights="folder")
    classifier = built(params, 2, WeightsConfig(folder=REAL)).eval()
    stem = load_file(REAL / f"{backbone}.safetensors")["conv_stem.weight"]
    assert torch.equal(classifier.trunk.conv_stem.weight, stem)
    assert classifier(images(32)).isfinite().all()


def test_a_frozen_trunk_trains_its_head_only() -> None:
    classifier = built(SMALL)
    assert freeze(classifier, 0) == 1280 * 2 + 2
    assert trainable(classifier) == set()


def test_an_unfrozen_trunk_trains_as_a_whole() -> None:
    classifier = built(SMALL)
    freeze(classifier, 0)
    assert freeze(classifier, 1) == sum(p.numel() for p in classifier.parameters())
    assert all(module.training for module in classifier.train().modules())


def test_a_share_trains_the_deepest_layers_and_the_smallest_share_at_least_one() -> None:
    classifier = built(CNN)
    freeze(classifier, 0.67)
    assert trainable(classifier) == {"3.weight", "3.bias", "6.weight", "6.bias"}
    freeze(classifier, 0.01)
    assert trainable(classifier) == {"6.weight", "6.bias"}


@pytest.mark.parametrize("backbone", [VIT.backbone, "convnext_atto", "mobilenetv2_035"])
def test_more_unfreezing_never_trains_less(backbone: str) -> None:
    classifier = built(Params(backbone=backbone, image_size=32))
    counts = [freeze(classifier, share) for share in (0, 0.1, 0.5, 0.9, 1)]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize(("unfreeze", "moves"), [(0, False), (0.5, False), (1, True)])
def test_frozen_batch_statistics_stay_as_they_were(unfreeze: float, moves: bool) -> None:
    classifier = built(SMALL, seed=0)
    freeze(classifier, unfreeze)
    before = classifier.trunk.bn1.running_mean.clone()
    classifier.train()
    classifier(images(32))
    assert torch.equal(classifier.trunk.bn1.running_mean, before) != moves


def test_statistics_can_be_kept_while_all_else_trains() -> None:
    classifier = built(SMALL, seed=0)
    assert freeze(classifier, 1, keep_statistics=True) == freeze(built(SMALL, seed=0), 1)
    before = classifier.trunk.bn1.running_mean.clone()
    classifier.train()
    classifier(images(32))
    assert torch.equal(classifier.trunk.bn1.running_mean, before)


def test_a_frozen_trunk_drops_nothing_while_its_head_trains() -> None:
    params = Params(backbone="cnn_batchnorm", image_size=32, hidden=8)
    classifier = built(params, seed=0)
    freeze(classifier, 0)
    normalised = classifier.train().normalise(images(32))
    assert torch.equal(classifier.features(normalised), classifier.features(normalised))
    assert classifier.head.training
