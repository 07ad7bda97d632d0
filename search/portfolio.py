"""The first trials of a study: recipes that are known to work, and the user's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from search.config import PortfolioConfig
from search.document import line_of, read_yaml
from search.errors import ConfigError
from search.params import Params
from search.space import flatten, unflatten

FILE = Path(__file__).with_name("portfolio.yaml")
Flat = dict[str, Any]


def load_portfolio(config: PortfolioConfig, *, n_classes: int) -> dict[str, Params]:
    """Params of every recipe the config asks for, in its order, then of those in its own file.

    `override` holds params for every shipped recipe (`image_size: 64`) and, under a recipe's name,
    params for that one alone (`vgg16: {lr: 1e-4}`), which win; of the user's own it reaches only
    those that it names. Binary cross-entropy needs two classes: with more, `bce` of a shipped one
    becomes `cross_entropy`, its counterpart over many. Where an override takes the pretrained
    weights away, nothing stays frozen: random features would be all there is.

    Raises:
        ConfigError: for an unknown recipe, an override that no trial could have, or an own recipe
            that is impossible or has a name that is taken.
    """
    shipped = _shipped()
    own = {} if config.file is None else _own(config.file, taken=set(shipped))
    wanted = list(shipped) if config.recipes == "all" else config.recipes
    common, single = _divide(config.override)
    _refuse_unknown(wanted, list(shipped))
    _refuse_unknown(list(single), [*shipped, *own])
    first = {name: _params(name, shipped[name] | common | single.get(name, {})) for name in wanted}
    portfolio = {name: _possible(params, n_classes) for name, params in first.items()}
    return portfolio | {name: _params(name, own[name] | single.get(name, {})) for name in own}


def shipped_recipes(config: PortfolioConfig) -> list[str]:
    """Names of those shipped recipes that the config asks for."""
    return list(_shipped()) if config.recipes == "all" else config.recipes


def _shipped() -> dict[str, Flat]:
    return {item.pop("recipe"): item for item in yaml.safe_load(FILE.read_text(encoding="utf-8"))}


def _own(file: Path, *, taken: set[str]) -> dict[str, Flat]:
    """The recipes of a user's file by name, each checked."""
    items, tree = read_yaml(file, "a YAML list of params under portfolio.file")
    if not isinstance(items, list) or tree is None:
        raise ConfigError(
            f"{file}:1: a list of params is expected, such as - {{backbone: cnn, lr: 0.01}}"
        )
    recipes: dict[str, Flat] = {}
    for index, item in enumerate(items):
        where = f"{file}:{line_of(tree, index)}"
        if not isinstance(item, Mapping):
            raise ConfigError(f"{where}: {item!r} is no params; write keys and values, as lr: 0.01")
        name = item.get("recipe", f"{file.stem}_{index + 1}")
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{where}: recipe: {name!r} is no name; give text, or leave it out")
        if name in taken or name in recipes:
            raise ConfigError(f"{where}: recipe: {name!r} is taken; choose another name")
        recipes[name] = {key: value for key, value in item.items() if key != "recipe"}
        _check(recipes[name], file, tree, index)
    return recipes


def _check(flat: Flat, file: Path, tree: yaml.Node, index: int) -> None:
    """Refuse the first of an own recipe's params that no trial could have, and name its line."""
    known = flatten(Params())
    for key, value in flat.items():
        where = f"{file}:{line_of(tree, index, key)}: {key}"
        if key not in known:
            raise ConfigError(f"{where}: no such param; the params are {', '.join(known)}")
        try:
            unflatten({key: value})
        except ValidationError as error:
            raise ConfigError(
                f"{where}: it cannot be {value!r}: {error.errors()[0]['msg']}"
            ) from error


def _divide(override: Mapping[str, Any]) -> tuple[Flat, dict[str, Flat]]:
    """What holds for every shipped recipe, and what for a single one."""
    single = {name: value for name, value in override.items() if isinstance(value, dict)}
    return {name: value for name, value in override.items() if name not in single}, single


def _refuse_unknown(names: list[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"portfolio: no recipe {name!r}; known are {', '.join(known)}")


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
