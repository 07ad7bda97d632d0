"""The first trials of a study: recipes that are known to work."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from search.config import PortfolioConfig
from search.errors import ConfigError
from search.params import Params
from search.space import unflatten

FILE = Path(__file__).with_name("portfolio.yaml")
Flat = dict[str, Any]


def load_portfolio(config: PortfolioConfig, *, n_classes: int) -> dict[str, Params]:
    """Params of every recipe the config asks for, in its order.

    `override` holds params for every recipe (`image_size: 64`) and, under a recipe's name, params
    for that one alone (`vgg16: {lr: 1e-4}`), which win. Binary cross-entropy needs two classes:
    with more, `bce` becomes `cross_entropy`, its counterpart over many. Where an override takes
    the pretrained weights away, nothing stays frozen: random features would be all there is.

    Raises:
        ConfigError: for an unknown recipe, or an override that no trial could have.
    """
    recipes: dict[str, Flat] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    wanted = list(recipes) if config.recipes == "all" else config.recipes
    common, own = _divide(config.override)
    for name in [*wanted, *own]:
        if name not in recipes:
            raise ConfigError(f"portfolio: no recipe {name!r}; known are {', '.join(recipes)}")
    portfolio = {name: _params(name, recipes[name] | common | own.get(name, {})) for name in wanted}
    return {name: _possible(params, n_classes) for name, params in portfolio.items()}


def _divide(override: Mapping[str, Any]) -> tuple[Flat, dict[str, Flat]]:
    """What holds for every recipe, and what for a single one."""
    own = {name: value for name, value in override.items() if isinstance(value, dict)}
    return {name: value for name, value in override.items() if name not in own}, own


def _params(name: str, flat: Flat) -> Params:
    try:
        return unflatten(flat)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(
            f"portfolio.override: {key} of {name} cannot be {problem['input']!r}: {problem['msg']}"
        ) from error


def _possible(params: Params, n_classes: int) -> Params:
    loss = "cross_entropy" if params.loss == "bce" and n_classes > 2 else params.loss
    unfreeze = 1.0 if params.weights == "none" else params.unfreeze
    return params.model_copy(update={"loss": loss, "unfreeze": unfreeze})
