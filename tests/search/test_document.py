"""A config's mistake is named by file, line and key."""

from pathlib import Path

import pytest

from search.config import ExperimentConfig, load_config
from search.errors import ConfigError

GOOD = """\
name: tiny
output: out
dataset:
  sources:
    - folder: images
  positive: malignant
space:
  lr: {low: 1e-4, high: 1e-2, log: true}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return path


def load(folder: Path, text: str) -> ExperimentConfig:
    return load_config(write(folder, text))


def test_paths_resolve_from_the_configs_folder(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert config.output == tmp_path / "out"
    assert config.study_folder == tmp_path / "out" / "study"
    assert config.model_dump()["dataset"]["sources"][0]["folder"] == tmp_path / "images"


def test_an_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).model_dump()["space"]["lr"]["low"] == 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: tiny", "nmae: tiny"), r"tiny.yaml:1: nmae: unknown key; known here: name"),
        (("folder: images", "foldr: images"), r"tiny.yaml:5: .*foldr: unknown key"),
        (("name: tiny\n", ""), r"name: this key is needed"),
        (("low: 1e-4", "low: 1"), r"tiny.yaml:8: .*low 1 is above high 0.01"),
        (("  lr:", "  learning_rate:"), r"tiny.yaml:8?.*'learning_rate' is not a param"),
        (("high: 1e-2", "high: 7"), r"lr cannot be 7"),
        (("name: tiny", "name: a/b"), r"tiny.yaml:1: name: .*'a/b'"),
        (("positive: malignant", "positive: [a"), r"tiny.yaml:\d+: not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_with_the_key_and_the_rule(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, GOOD.replace(*change))
    assert "\n" not in str(caught.value)


def test_a_positive_class_must_be_one_of_the_classes(tmp_path: Path) -> None:
    text = GOOD.replace("  positive:", "  classes: {mel: [mel], other: '*'}\n  positive:")
    with pytest.raises(ConfigError, match="positive 'malignant' is none of mel, other"):
        load(tmp_path, text)


@pytest.mark.parametrize("name", ["absent.yaml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name an experiment's YAML file"):
        load_config(tmp_path / name)


def test_an_empty_file_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a mapping of keys is expected"):
        load(tmp_path, "")


def test_both_a_sensitivity_and_a_cost_are_too_much(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="policy: say exactly one of sensitivity and cost_ratio"):
        load(tmp_path, GOOD + "policy: {sensitivity: 0.9, cost_ratio: 3}\n")
