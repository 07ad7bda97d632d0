"""The fixed recipes."""

import pytest

from search.backbones import allowed_backbones
from search.config import PortfolioConfig, WeightsConfig
from search.errors import ConfigError
from search.portfolio import load_portfolio

SIX = ["custom_cnn", "cnn_batchnorm", "vgg16", "resnet50", "mobilenetv2", "efficientnet_b0"]


def test_all_recipes_are_the_six_known_systems_in_their_order() -> None:
    assert list(load_portfolio(PortfolioConfig(), n_classes=2)) == SIX


def test_every_recipe_uses_an_allowed_backbone_and_augments() -> None:
    for params in load_portfolio(PortfolioConfig(), n_classes=2).values():
        assert params.backbone in allowed_backbones(WeightsConfig())
        assert params.augment.rotation == 20
        assert params.augment.flip_horizontal == 0.5


def test_the_dense_head_systems_keep_their_pretrained_base_frozen() -> None:
    portfolio = load_portfolio(PortfolioConfig(), n_classes=2)
    for name in ("vgg16", "resnet50", "mobilenetv2"):
        params = portfolio[name]
        assert (params.weights, params.unfreeze) == ("hub", 0)
        assert params.hidden > 0
    assert portfolio["efficientnet_b0"].unfreeze == 1


def test_named_recipes_come_alone_and_in_the_order_asked_for() -> None:
    config = PortfolioConfig(recipes=["resnet50", "custom_cnn"])
    assert list(load_portfolio(config, n_classes=2)) == ["resnet50", "custom_cnn"]


def test_no_recipes_is_an_empty_portfolio() -> None:
    assert load_portfolio(PortfolioConfig(recipes=[]), n_classes=2) == {}


def test_an_override_reaches_every_recipe() -> None:
    config = PortfolioConfig(override={"image_size": 28, "grayscale": True, "augment.hair": 0.5})
    for params in load_portfolio(config, n_classes=2).values():
        assert (params.image_size, params.grayscale) == (28, True)
        assert (params.augment.hair, params.augment.rotation) == (0.5, 20)


def test_an_override_of_one_recipe_leaves_the_others_and_wins_over_the_common_one() -> None:
    config = PortfolioConfig(override={"vgg16": {"lr": "1e-4"}, "lr": 0.01})
    portfolio = load_portfolio(config, n_classes=2)
    assert portfolio["vgg16"].lr == 1e-4
    assert {portfolio[name].lr for name in SIX if name != "vgg16"} == {0.01}


def test_without_pretrained_weights_nothing_stays_frozen() -> None:
    portfolio = load_portfolio(PortfolioConfig(override={"weights": "none"}), n_classes=2)
    assert {params.unfreeze for params in portfolio.values()} == {1}


def test_two_classes_keep_binary_cross_entropy_and_more_replace_it() -> None:
    config = PortfolioConfig(recipes=["custom_cnn"])
    assert load_portfolio(config, n_classes=2)["custom_cnn"].loss == "bce"
    assert load_portfolio(config, n_classes=7)["custom_cnn"].loss == "cross_entropy"


def test_more_classes_leave_another_loss_as_it_is() -> None:
    config = PortfolioConfig(override={"loss": "focal"})
    losses = {params.loss for params in load_portfolio(config, n_classes=7).values()}
    assert losses == {"focal"}


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'alexnet'; known are custom_cnn, cnn_batch"):
        load_portfolio(PortfolioConfig(recipes=["alexnet"]), n_classes=2)


def test_an_override_under_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'vgg'; known are"):
        load_portfolio(PortfolioConfig(override={"vgg": {"lr": 0.1}}), n_classes=2)


def test_an_impossible_override_names_the_key_and_the_recipe() -> None:
    with pytest.raises(ConfigError, match=r"lr of resnet50 cannot be 7: .*less than or equal to 1"):
        load_portfolio(PortfolioConfig(override={"resnet50": {"lr": 7}}), n_classes=2)


def test_an_override_of_no_param_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"epochs of custom_cnn cannot be 3"):
        load_portfolio(PortfolioConfig(override={"epochs": 3}), n_classes=2)
