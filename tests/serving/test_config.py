from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.config import ServingConfig

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
    assert ServingConfig(bundle=BUNDLE, host=host, port=80).url == url


def test_fewer_replicas_at_most_than_at_least_are_refused() -> None:
    with pytest.raises(ValidationError, match="max_replicas 2 is below min_replicas 3"):
        ServingConfig(bundle=BUNDLE, min_replicas=3)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="workers"):
        ServingConfig.model_validate({"bundle": "bundle", "workers": 2})
