"""The Ray Serve application, without a Ray."""

from pathlib import Path

import pytest

from search.errors import ServingError
from serving.app import build_app, read_rollout
from serving.config import ServingConfig


@pytest.mark.parametrize("path", ["~nobody-of-this-name/bundle"])
def test_a_path_that_cannot_be_resolved_is_refused(path: str) -> None:
    with pytest.raises(ServingError, match=r"user_config: "):
        read_rollout({"bundles": {"a": {"path": path}}, "serving": "a"})


def test_a_user_config_that_is_no_rollout_is_refused_in_one_line() -> None:
    with pytest.raises(ServingError, match=r"user_config: bundles: Field required; it takes"):
        read_rollout(None)
    with pytest.raises(ServingError, match=r"'b' is none of the bundles; there are a"):
        read_rollout({"bundles": {"a": {"path": "/x"}}, "serving": "b"})


def test_a_yaml_reaches_the_builder_checked(bundle_folder: Path) -> None:
    assert build_app.__annotations__["args"] is ServingConfig
    assert build_app(ServingConfig(bundle=bundle_folder)) is not None


def test_a_gpu_is_asked_by_torch_alone() -> None:
    with pytest.raises(ValueError, match=r"engine onnx runs on CPUs; set engine: torch"):
        ServingConfig(gpus=1)
    assert ServingConfig(gpus=0.5, engine="torch").batch == 32
