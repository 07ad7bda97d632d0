"""configs/serve.yaml is what `serve deploy` takes, and what its comments promise holds."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serving.app import build_app
from serving.config import Rollout, ServingConfig

PATH = Path(__file__).parent.parent / "configs" / "serve.yaml"


def read(text: str | None = None) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(PATH.read_text() if text is None else text)
    return document


def as_commented(*starts: str) -> dict[str, Any]:
    """The document with those of its commented lines that begin so put into force."""
    lines = []
    for line in PATH.read_text().splitlines():
        plain = line.replace("# ", "", 1)
        lines.append(plain if plain.strip().startswith(starts) and "  # " in line else line)
    return read("\n".join(lines))


def user_config(document: dict[str, Any]) -> Any:
    return document["applications"][0]["deployments"][0]["user_config"]


def test_serve_takes_the_whole_file() -> None:
    schema = ServeDeploySchema.model_validate(read())
    (application,) = schema.applications
    (deployment,) = application.deployments
    assert (application.name, application.route_prefix) == ("consilium", "/")
    assert application.import_path == f"{build_app.__module__}:{build_app.__name__}"
    assert deployment.user_config == user_config(read())
    assert set(read()) <= set(ServeDeploySchema.model_fields)  # it ignores what it does not know


def test_the_args_are_a_service_that_listens_where_serve_does() -> None:
    document = read()
    config = ServingConfig.model_validate(document["applications"][0]["args"])
    http = document["http_options"]
    assert (config.host, config.port) == (http["host"], http["port"])
    assert config.request_timeout_s == http["request_timeout_s"]
    assert config.rollout is None


def test_the_user_config_is_a_rollout_of_one_bundle() -> None:
    rollout = Rollout.model_validate(user_config(read()))
    assert rollout.serving == "current"
    assert str(rollout.bundles["current"].path) == "/srv/consilium/bundles/current"


@pytest.mark.parametrize("line", ["canary: {", "shadow: next"])
def test_the_commented_canary_and_shadow_hold_once_the_next_bundle_is_named(line: str) -> None:
    document = as_commented("next:", "path: /srv/consilium/bundles/next", line)
    rollout = Rollout.model_validate(user_config(document))
    assert set(rollout.bundles) == {"current", "next"}
    named = rollout.shadow if rollout.canary is None else rollout.canary.name
    assert named == "next"


def test_the_commented_args_are_ones_that_the_service_knows() -> None:
    document = as_commented("keys:", "bundle_root:", "audit:", "traces:")
    config = ServingConfig.model_validate(document["applications"][0]["args"])
    assert config.traces == "http://collector:4318"
    assert None not in (config.keys, config.bundle_root, config.audit)


def test_an_open_host_without_keys_is_refused_as_the_comment_says() -> None:
    args = read()["applications"][0]["args"] | {"host": "0.0.0.0"}  # noqa: S104
    with pytest.raises(ValueError, match=r"no keys are asked for"):
        ServingConfig.model_validate(args)


def test_the_deployment_that_is_configured_is_the_one_that_the_app_has() -> None:
    config = ServingConfig.model_validate(read()["applications"][0]["args"])
    named = read()["applications"][0]["deployments"][0]["name"]
    assert build_app(config)._bound_deployment.name == named
