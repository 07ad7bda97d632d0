"""The `pipeline:` section."""

from pathlib import Path
from typing import Any

import pytest

from cluster.pipeline.config import PipelineConfig, pipeline_config
from search.config import load_config
from search.errors import ConfigError
from tests.experiments import DOCUMENT, write_experiment


def configured(folder: Path, section: dict[str, Any], **changes: Any) -> PipelineConfig:
    path = write_experiment(folder, pipeline=section, **changes)
    return pipeline_config(path, load_config(path))


def test_an_absent_section_ends_after_a_gate_on_log_loss(tmp_path: Path) -> None:
    config = configured(tmp_path, {})
    assert config.service is None
    assert [(rule.metric, rule.margin) for rule in config.gate] == [("nll", 0.01)]
    assert config.releases == tmp_path / "out" / "releases"


def test_paths_are_those_beside_the_yaml(tmp_path: Path) -> None:
    config = configured(tmp_path, {"releases": "shared", "evaluate": ["other.yaml"]})
    assert config.releases == tmp_path / "shared"
    assert config.evaluate == [tmp_path / "other.yaml"]


@pytest.mark.parametrize(
    ("section", "rule"),
    [
        ({"servce": None}, r"pipeline.servce: unknown key; known here: service"),
        ({"service": "lesions.example"}, r"pipeline.service: an address is expected"),
        ({"service": "ftp://host"}, r"pipeline.service: an address is expected"),
        ({"service": "http://host:no"}, r"pipeline.service: an address is expected"),
        ({"gate": []}, r"pipeline.gate: List should have at least 1 item"),
        ({"gate": [{"metric": "nll", "margin": 0}] * 2}, r"gate: name each metric once"),
        ({"gate": [{"metric": "accuracy", "margin": 0}]}, r"unknown metric 'accuracy'; known are"),
        ({"gate": [{"metric": "nll", "margin": -0.1}]}, r"margin: .* greater than or equal to 0"),
        ({"canary": {"percent": 0}}, r"pipeline.canary.percent: .* greater than 0"),
        ({"api_key_env": "a key"}, r"pipeline.api_key_env: String should match"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_rule(
    tmp_path: Path, section: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ConfigError, match=rule):
        configured(tmp_path, section)


def test_a_password_in_the_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no user or password in the URL") as refused:
        configured(tmp_path, {"service": "http://me:open-sesame@host:8000"})
    assert "open-sesame" not in str(refused.value)


def test_a_rule_about_the_positive_class_needs_one(tmp_path: Path) -> None:
    dataset = {key: value for key, value in DOCUMENT["dataset"].items() if key != "positive"}
    section = {"gate": [{"metric": "sensitivity", "margin": 0.02}]}
    with pytest.raises(ConfigError, match=r"sensitivity is about a positive class"):
        configured(tmp_path, section, dataset=dataset)
