"""Paths in a config are local or URLs, and the cache's may be each node's own."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from search.config import ExperimentConfig, load_config
from search.errors import CacheError, ConfigError
from tests.experiments import DOCUMENT


def load(folder: Path, **changes: Any) -> ExperimentConfig:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**DOCUMENT, **changes}))
    return load_config(path)


def sources(**source: Any) -> dict[str, Any]:
    columns = {"image": "image", "label": "label"}
    return {"dataset": {"sources": [{"columns": columns, **source}], "positive": "malignant"}}


def test_sources_may_be_urls_and_survive_the_study_s_yaml(tmp_path: Path) -> None:
    config = load(tmp_path, **sources(table="s3://b/t.csv", images=["s3://b/i/", "near"]))
    document = config.model_dump(mode="json")
    source = document["dataset"]["sources"][0]
    assert source["table"] == "s3://b/t.csv"
    assert source["images"] == ["s3://b/i", str(tmp_path / "near")]
    assert ExperimentConfig.model_validate(yaml.safe_load(yaml.safe_dump(document))) == config


@pytest.mark.parametrize("url", ["ftp://host/set", "s3://", "file:///set"])
def test_only_object_stores_are_urls_of_a_source(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"a local folder, s3://bucket/prefix or gs://bucket/pr"):
        load(tmp_path, **sources(table=url, images=["images"]))


def test_the_cache_of_a_node_lies_where_its_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(tmp_path, cache="$SCRATCH/consilium")
    for place in ("/fast/a", "/fast/b"):  # two nodes
        monkeypatch.setenv("SCRATCH", place)
        assert config.cache_folder == Path(place, "consilium")
    assert config.model_dump(mode="json")["cache"] == "$SCRATCH/consilium"


@pytest.mark.parametrize("value", [None, "relative"])
def test_a_variable_that_a_node_lacks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    config = load(tmp_path, cache="${SCRATCH}/consilium")
    monkeypatch.delenv("SCRATCH", raising=False)
    if value is not None:
        monkeypatch.setenv("SCRATCH", value)
    with pytest.raises(CacheError, match=r"cache: \$\{SCRATCH\}/consilium is .* on .*; set the va"):
        _ = config.cache_folder


def test_a_cache_without_a_variable_is_resolved_as_ever(tmp_path: Path) -> None:
    assert load(tmp_path, cache="fast").cache_folder == tmp_path / "fast"
    assert load(tmp_path).cache_folder == tmp_path / "out" / "cache"


def test_the_bound_of_the_cache_is_told_in_gigabytes(tmp_path: Path) -> None:
    assert load(tmp_path).cache_bytes is None
    assert load(tmp_path, cache_gb=1.5).cache_bytes == 1_500_000_000
    with pytest.raises(ConfigError, match=r"cache_gb: .*greater than 0"):
        load(tmp_path, cache_gb=0)
