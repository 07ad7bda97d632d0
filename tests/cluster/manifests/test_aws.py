"""cluster/aws.yaml is what Ray's cluster launcher and EC2 take: checked against both, offline."""

import copy
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import botocore.session  # type: ignore[import-untyped]
import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from botocore.validate import ParamValidator  # type: ignore[import-untyped]
from moto import mock_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.cluster.manifests.objects import ROOT

PATH = ROOT / "cluster" / "aws.yaml"
OURS = {"SubnetIds"}  # Ray's own word, which it turns into EC2's SubnetId


def read() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(PATH.read_text())
    return document


def prepared(document: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = prepare_config(copy.deepcopy(document))
    validate_config(config)
    return config


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stand-in for EC2 that knows its instance types."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    with mock_aws():
        yield


def test_the_launcher_takes_it_whole() -> None:
    config = prepared(read())
    assert config["cluster_name"] == "consilium"
    assert set(config["available_node_types"]) == {"head", "gpu"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("max_worker", 3, r"max_worker"), ("idle_timeout_minutes", "ten", r"'ten' is not of type")],
)
def test_a_mistake_in_it_is_refused(key: str, value: Any, said: str) -> None:
    with pytest.raises(jsonschema.ValidationError, match=said):
        prepared(read() | {key: value})


def test_a_head_that_is_no_node_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"head_node_type"):
        prepared(read() | {"head_node_type": "boss"})


def test_ec2_has_the_machines_and_the_workers_have_a_gpu(ec2: None) -> None:
    config = AWSNodeProvider.fillout_available_node_types_resources(prepared(read()))
    types = config["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0
    assert types["gpu"]["resources"]["GPU"] == 1
    assert types["gpu"]["resources"]["CPU"] == 8


def problems(node: dict[str, Any]) -> str:
    """What EC2's own description of RunInstances has against a node's settings."""
    model = botocore.session.get_session().get_service_model("ec2")
    shape = model.operation_model("RunInstances").input_shape
    request = {key: value for key, value in node.items() if key not in OURS}
    report = ParamValidator().validate(request | {"MinCount": 1, "MaxCount": 1}, shape)
    return str(report.generate_report())


def test_ec2_knows_every_setting_of_the_nodes() -> None:
    for node_type in read()["available_node_types"].values():
        assert problems(node_type["node_config"]) == ""
    assert "Unknown parameter" in problems({"InstanceTypo": "g5.2xlarge"})


def test_workers_are_spot_come_from_none_and_go_when_idle() -> None:
    config = prepared(read())
    gpu = config["available_node_types"]["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, config["max_workers"])
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert 0 < config["idle_timeout_minutes"] <= 30


def test_nodes_have_roles_encrypted_disks_and_no_open_metadata() -> None:
    for node_type in read()["available_node_types"].values():
        node = node_type["node_config"]
        assert node["IamInstanceProfile"]["Name"].startswith("consilium-")
        assert node["SecurityGroupIds"]  # else Ray makes one that lets the internet in
        assert node["MetadataOptions"]["HttpTokens"] == "required"
        assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])


def test_nothing_is_copied_to_nodes_and_ray_asks_for_a_token() -> None:
    config = read()
    assert config["file_mounts"] == {}
    starts = config["head_start_ray_commands"][1:] + config["worker_start_ray_commands"][1:]
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "auth_token" in config["setup_commands"][0]


def test_the_image_is_the_one_for_training_and_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.search(rf"/consilium-train:{re.escape(version)}$", read()["docker"]["image"])
    registry = read()["docker"]["image"].split("/")[0]
    assert registry in read()["initialization_commands"][0]
    assert read()["provider"]["region"] in registry
