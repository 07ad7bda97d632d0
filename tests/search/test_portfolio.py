"""The fixed recipes, and the user's own."""

from pathlib import Path
from typing import Any

import pytest

from search.config import PortfolioConfig, WeightsConfig
from search.errors import ConfigError
from search.params import Params
from search.portfolio import load_portfolio, shipped_recipes
from search.training.backbones import allowed_backbones

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


OWN = """\
- recipe: mine
  backbone: cnn
  lr: 1e-4
  augment.rotation: 45

- image_size: 64
"""


def own(folder: Path, text: str = OWN, **config: Any) -> dict[str, Params]:
    file = folder / "known_good.yaml"
    file.write_text(text)
    whole: dict[str, Any] = {"recipes": ["vgg16"], "file": file, **config}
    return load_portfolio(PortfolioConfig(**whole), n_classes=7)


def test_own_recipes_come_last_and_are_named_by_their_file_where_they_have_no_name(
    tmp_path: Path,
) -> None:
    portfolio = own(tmp_path)
    assert list(portfolio) == ["vgg16", "mine", "known_good_2"]
    mine = portfolio["mine"]
    assert (mine.backbone, mine.lr, mine.augment.rotation) == ("cnn", 1e-4, 45)
    assert portfolio["known_good_2"] == Params(image_size=64)


def test_own_recipes_may_be_the_only_ones(tmp_path: Path) -> None:
    assert list(own(tmp_path, recipes=[])) == ["mine", "known_good_2"]
    assert list(own(tmp_path, recipes="all")) == [*SIX, "mine", "known_good_2"]
    assert own(tmp_path, "[]", recipes=[]) == {}


def test_the_shipped_recipes_are_told_from_the_own(tmp_path: Path) -> None:
    file = tmp_path / "known_good.yaml"
    assert shipped_recipes(PortfolioConfig(file=file)) == SIX
    assert shipped_recipes(PortfolioConfig(recipes=["vgg16"], file=file)) == ["vgg16"]


def test_an_override_reaches_an_own_recipe_only_by_its_name(tmp_path: Path) -> None:
    override = {"image_size": 28, "known_good_2": {"lr": 0.5}}
    portfolio = own(tmp_path, override=override)
    sizes = {name: params.image_size for name, params in portfolio.items()}
    assert sizes == {"vgg16": 28, "mine": 128, "known_good_2": 64}
    assert [params.lr for params in portfolio.values()] == [0.001, 1e-4, 0.5]


def test_own_params_stay_as_they_were_written(tmp_path: Path) -> None:
    text = "- {recipe: mine, loss: bce, unfreeze: 0, weights: none}"
    params = own(tmp_path, text)["mine"]
    assert (params.loss, params.unfreeze) == ("bce", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("lr: 1e-4", "lr: 7"), r"known_good.yaml:3: lr: it cannot be 7: .*less than or equal to"),
        (("lr: 1e-4", "lr:"), r"known_good.yaml:3: lr: it cannot be None: .*valid number"),
        (("rotation", "rotate"), r"known_good.yaml:4: augment.rotate: no such param; the params a"),
        (("- image", "- epochs: 3\n  image"), r"known_good.yaml:6: epochs: no such param; the pa"),
        (("- image_size: 64", "- 64"), r"known_good.yaml:6: 64 is no params; write keys and value"),
        (("mine", "vgg16"), r"known_good.yaml:1: recipe: 'vgg16' is taken; choose another name"),
        (("mine", "resnet50"), r"known_good.yaml:1: recipe: 'resnet50' is taken"),
        (("mine", "known_good_2"), r"known_good.yaml:6: recipe: 'known_good_2' is taken"),
        (("mine", "12"), r"known_good.yaml:1: recipe: 12 is no name; give text, or leave it out"),
        ((OWN, "lr: 0.1"), r"known_good.yaml:1: a list of params is expected, such as - \{"),
        ((OWN, ""), r"known_good.yaml:1: a list of params is expected"),
        ((OWN, "- lr: ["), r"known_good.yaml:1: not valid YAML"),
    ],
)
def test_a_mistake_in_an_own_recipe_is_one_line_with_file_line_and_key(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        own(tmp_path, OWN.replace(*change))
    assert "\n" not in str(caught.value)


def test_a_file_of_own_recipes_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = PortfolioConfig(file=tmp_path / "absent.yaml")
    with pytest.raises(
        ConfigError, match=r"absent.yaml: no such file or directory; name a YAML list of params und"
    ):
        load_portfolio(config, n_classes=2)


def test_an_impossible_override_of_an_own_recipe_blames_the_override(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"portfolio.override: lr of mine cannot be 7"):
        own(tmp_path, override={"mine": {"lr": 7}})


def test_an_override_under_no_recipes_name_lists_shipped_and_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no recipe 'yours'; known are custom.*, known_good_2$"):
        own(tmp_path, override={"yours": {"lr": 0.1}})
