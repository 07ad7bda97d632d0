"""The RayService's Serve config: Serve and the service take it, and its pods can hold it."""

import copy
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from serving.app import build_app
from serving.config import Rollout, ServingConfig
from tests.cluster.manifests.objects import ROOT, cluster_of, ray_pods, read


def serve_config() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(read("RayService")["spec"]["serveConfigV2"])
    return document


def application() -> dict[str, Any]:
    (found,) = serve_config()["applications"]
    whole: dict[str, Any] = found
    return whole


def config() -> ServingConfig:
    return ServingConfig.model_validate(application()["args"])


def rollout() -> Rollout:
    (deployment,) = application()["deployments"]
    return Rollout.model_validate(deployment["user_config"])


def test_serve_takes_all_of_it() -> None:
    schema = ServeDeploySchema.model_validate(serve_config())
    assert schema.applications[0].import_path == f"{build_app.__module__}:{build_app.__name__}"
    assert set(serve_config()) <= set(ServeDeploySchema.model_fields)  # what it does not know
    assert build_app(config())._bound_deployment.name == application()["deployments"][0]["name"]


def test_it_says_the_same_as_the_file_for_any_cluster() -> None:
    other = yaml.safe_load((ROOT / "configs" / "serve.yaml").read_text())
    ours = serve_config()
    assert set(ours) == set(other)
    for key in ("name", "route_prefix", "import_path"):
        assert application()[key] == other["applications"][0][key]


def test_it_listens_to_the_network_and_so_asks_for_keys() -> None:
    http = serve_config()["http_options"]
    assert (config().host, config().port) == (http["host"], http["port"])
    assert config().request_timeout_s == http["request_timeout_s"]
    assert config().keys is not None
    assert config().insecure is False


def test_keys_and_bundles_are_where_volumes_are_mounted() -> None:
    for pod in ray_pods(read("RayService")):
        mounts = {m["mountPath"]: m for m in pod.containers[0]["volumeMounts"]}
        assert mounts[str(config().keys).rpartition("/")[0]]["readOnly"] is True
        assert mounts[str(config().bundle_root)]["readOnly"] is True
    for bundle in rollout().bundles.values():
        assert str(bundle.path).startswith(f"{config().bundle_root}/")


def test_all_replicas_have_room_one_to_a_pod_and_the_least_of_them_at_once() -> None:
    (group,) = cluster_of(read("RayService"))["workerGroupSpecs"]
    cpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    assert config().cpus < cpus < 2 * config().cpus
    assert group["minReplicas"] == config().min_replicas >= 2
    assert group["maxReplicas"] >= config().max_replicas


def test_a_pod_that_is_to_go_has_the_time_that_a_request_may_take() -> None:
    for pod in ray_pods(read("RayService")):
        assert pod.spec["terminationGracePeriodSeconds"] > config().request_timeout_s
    assert read("RayService")["spec"]["rayClusterDeletionDelaySeconds"] > config().request_timeout_s


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keyz": "/etc/consilium/keys/keys.json"}, r"keyz"),
        ({"keys": None}, r"no keys are asked for"),
        ({"max_replicas": "many"}, r"max_replicas"),
    ],
)
def test_args_that_the_service_does_not_take_are_seen(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ServingConfig.model_validate(application()["args"] | change)


def test_a_serve_config_with_a_mistake_is_seen() -> None:
    broken = copy.deepcopy(serve_config())
    broken["applications"][0]["import_path"] = "serving:app:build_app"
    with pytest.raises(ValidationError, match=r"import_path"):
        ServeDeploySchema.model_validate(broken)
