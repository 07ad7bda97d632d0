from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.config import Rollout, ServingConfig, as_user_config

BUNDLE = Path("bundle")


def test_the_service_listens_on_this_machine_only_unless_told_otherwise() -> None:
    config = ServingConfig(bundle=BUNDLE)
    assert config.url == "http://127.0.0.1:8000"


def test_a_relative_bundle_becomes_absolute_because_replicas_work_elsewhere() -> None:
    assert ServingConfig(bundle=BUNDLE).bundle == Path.cwd() / "bundle"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104
        ("::", "http://[::1]:80"),
        ("box", "http://box:80"),
    ],
)
def test_the_url_is_one_that_can_be_asked(host: str, url: str) -> None:
    assert ServingConfig(bundle=BUNDLE, host=host, port=80, insecure=True).url == url


def test_fewer_replicas_at_most_than_at_least_are_refused() -> None:
    with pytest.raises(ValidationError, match="max_replicas 2 is below min_replicas 3"):
        ServingConfig(bundle=BUNDLE, min_replicas=3)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="workers"):
        ServingConfig.model_validate({"bundle": "bundle", "workers": 2})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_on_this_machine_no_keys_are_asked_for(host: str) -> None:
    assert ServingConfig(bundle=BUNDLE, host=host).keys is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "box", "192.0.2.1"])  # noqa: S104
def test_a_host_that_others_reach_needs_keys_or_the_word_insecure(host: str) -> None:
    with pytest.raises(ValidationError, match=r"no keys are asked for; name a file of keys"):
        ServingConfig(bundle=BUNDLE, host=host)
    assert ServingConfig(bundle=BUNDLE, host=host, insecure=True)
    assert ServingConfig(bundle=BUNDLE, host=host, keys=Path("keys.yaml"))


def test_a_rollout_names_bundles_that_there_are_and_each_in_one_role() -> None:
    both = {"a": {"path": "/a"}, "b": {"path": "/b"}}
    assert Rollout.model_validate({"bundles": both, "serving": "a", "shadow": "b"})
    for roles, rule in (
        ({"serving": "c"}, r"'c' is none of the bundles; there are a, b"),
        ({"serving": "a", "shadow": "a"}, r"the shadow is the serving bundle itself"),
        ({"serving": "a", "canary": {"name": "a", "percent": 5}}, r"the canary is the serving"),
        ({"serving": "a", "canary": {"name": "b", "percent": 0}}, r"greater than 0"),
    ):
        with pytest.raises(ValidationError, match=rule):
            Rollout.model_validate({"bundles": both, **roles})


def test_a_rollout_goes_through_serves_user_config_unchanged() -> None:
    rollout = Rollout.of(BUNDLE, "d" * 64)
    assert Rollout.model_validate(as_user_config(rollout)) == rollout
