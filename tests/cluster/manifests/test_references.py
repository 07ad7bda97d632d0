"""What the manifests say of each other and of the code holds."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from serving.environment import serve_environment
from serving.http.front import OPEN
from tests.cluster.manifests.objects import (
    CLUSTERS,
    FOLDER,
    ROOT,
    Object,
    PodTemplate,
    all_pods,
    cluster_of,
    name_of,
    ray_pods,
    read,
    read_all,
)

PODS = all_pods()
# Of Ray itself: the agent on each node, and Serve's proxy (without a token).
RAYS_OWN = {52365: {"/api/healthz"}, 8000: {"/-/healthz"}}
MANIFESTS = sorted((ROOT / "cluster").glob("*.yaml")) + sorted(FOLDER.glob("*.yaml"))


def named(kind: str) -> set[str]:
    return {obj["metadata"]["name"] for obj in read_all() if obj["kind"] == kind}


def owner(pod: PodTemplate) -> str:
    return pod.owner


def version() -> str:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: str = project["version"]
    return found


def test_all_is_in_one_namespace_that_is_made_here() -> None:
    spaces = {o["metadata"]["namespace"] for o in read_all() if o["kind"] != "Namespace"}
    assert spaces == named("Namespace") == {"consilium"}


def test_kubernetes_itself_refuses_pods_with_rights_there() -> None:
    labels = read("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("pod", PODS, ids=owner)
def test_volumes_secrets_and_maps_that_a_pod_names_are_here(pod: PodTemplate) -> None:
    for volume in pod.spec.get("volumes", []):
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            assert claim in named("PersistentVolumeClaim")
        if "configMap" in volume:
            assert volume["configMap"]["name"] in named("ConfigMap")
        if "secret" in volume:
            assert volume["secret"]["secretName"] in named("Secret")
    for container in pod.containers:
        for source in container.get("envFrom", []):
            assert source["secretRef"]["name"] in named("Secret")
        for variable in container.get("env", []):
            assert variable.get("valueFrom") is None or has_key(variable["valueFrom"])


def has_key(source: Object) -> bool:
    reference = source["secretKeyRef"]
    return any(
        obj["kind"] == "Secret"
        and obj["metadata"]["name"] == reference["name"]
        and reference["key"] in obj["stringData"]
        for obj in read_all()
    )


@pytest.mark.parametrize("pod", PODS, ids=owner)
def test_a_mount_is_of_a_volume_that_the_pod_has(pod: PodTemplate) -> None:
    names = {volume["name"] for volume in pod.spec.get("volumes", [])}
    names |= {"data"} if pod.owner == "StatefulSet-redis" else set()  # of its claim template
    mounts = [m for c in pod.containers for m in c.get("volumeMounts", [])]
    assert {mount["name"] for mount in mounts} == names


@pytest.mark.parametrize("pod", PODS, ids=owner)
def test_a_pod_is_nobody_and_may_nothing(pod: PodTemplate) -> None:
    security = pod.spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod.containers:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"].get("privileged")


@pytest.mark.parametrize("pod", PODS, ids=owner)
def test_only_the_head_whose_autoscaler_asks_for_pods_gets_a_token_of_kubernetes(
    pod: PodTemplate,
) -> None:
    assert pod.spec.get("automountServiceAccountToken", True) is pod.owner.endswith("-head")
    assert "serviceAccountName" not in pod.spec  # KubeRay makes the head's own


@pytest.mark.parametrize("pod", PODS, ids=owner)
def test_every_container_is_bounded_and_ray_has_all_that_it_is_promised(pod: PodTemplate) -> None:
    for container in pod.containers:
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"])
        assert {"cpu", "memory"} <= set(resources["limits"])
        if container["name"].startswith("ray-"):
            assert resources["requests"] == resources["limits"]


@pytest.mark.parametrize("kind", CLUSTERS)
def test_ray_lets_nobody_in_without_the_token_of_the_secret(kind: str) -> None:
    options = cluster_of(read(kind))["authOptions"]
    assert options["mode"] == "token"
    assert has_key({"secretKeyRef": {"name": options["secretName"], "key": "auth_token"}})


@pytest.mark.parametrize("kind", CLUSTERS)
def test_the_autoscaler_beside_the_head_is_bounded_and_may_nothing(kind: str) -> None:
    options = cluster_of(read(kind))["autoscalerOptions"]
    assert options["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert options["securityContext"]["allowPrivilegeEscalation"] is False
    assert {"cpu", "memory"} <= set(options["resources"]["limits"])


def test_redis_is_where_the_service_looks_for_it_and_asks_for_the_same_password() -> None:
    options = cluster_of(read("RayService"))["gcsFaultToleranceOptions"]
    host, port = options["redisAddress"].split(":")
    service = read("Service")
    assert service["metadata"]["name"] == host
    assert service["spec"]["ports"][0]["port"] == int(port)
    stateful = read("StatefulSet")
    assert service["spec"]["selector"] == stateful["spec"]["template"]["metadata"]["labels"]
    (variable,) = stateful["spec"]["template"]["spec"]["containers"][0]["env"]
    assert options["redisPassword"]["valueFrom"] == variable["valueFrom"]


@pytest.mark.parametrize("pod", ray_pods(read("RayService")), ids=owner)
def test_every_pod_of_the_service_has_serves_environment_before_ray_starts(
    pod: PodTemplate,
) -> None:
    (container,) = pod.containers
    found = {variable["name"]: variable["value"] for variable in container["env"]}
    assert found == serve_environment(haproxy=True)


@pytest.mark.parametrize("pod", PODS, ids=owner)
def test_a_probe_asks_for_what_is_answered_there(pod: PodTemplate) -> None:
    for container in pod.containers:
        for name in ("readinessProbe", "livenessProbe"):
            if pod.owner == "RayJob-submitter":
                assert name not in container  # it ends
                continue
            probe = container[name]
            if "exec" in probe:
                assert pod.owner == "StatefulSet-redis"
                continue
            path, port = probe["httpGet"]["path"], probe["httpGet"]["port"]
            assert path in RAYS_OWN[port] | (OPEN if port == 8000 else set())


def test_what_ray_is_asked_by_probes_needs_no_token() -> None:
    from ray.dashboard.http_server_agent import PUBLIC_EXACT_PATHS
    from ray.serve._private.haproxy import HAProxyConfig
    from ray.serve.config import HTTPOptions

    assert RAYS_OWN[52365] <= set(PUBLIC_EXACT_PATHS)
    assert {HAProxyConfig(http_options=HTTPOptions()).health_check_endpoint} == RAYS_OWN[8000]


@pytest.mark.parametrize("pod", PODS, ids=owner)
def test_images_are_pinned_and_ours_are_of_this_version(pod: PodTemplate) -> None:
    for container in pod.containers:
        name, _, tag = container["image"].partition(":")
        assert re.fullmatch(r"\d+\.\d+\.\d+(-[a-z0-9]+)?", tag)
        if name.startswith("consilium-"):
            assert tag == version()
            assert (ROOT / f"cluster/docker/{name.removeprefix('consilium-')}.Dockerfile").exists()


@pytest.mark.parametrize("kind", CLUSTERS)
def test_kubernetes_is_told_the_ray_that_the_images_have(kind: str) -> None:
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    assert f"ray=={cluster_of(read(kind))['rayVersion']}" in pinned
    assert cluster_of(read(kind))["rayVersion"] == ray.__version__


@pytest.mark.parametrize("secret", [o for o in read_all() if o["kind"] == "Secret"], ids=name_of)
def test_a_secret_here_has_no_value(secret: Object) -> None:
    assert secret["stringData"]
    assert not any(secret["stringData"].values())
    assert "data" not in secret


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_no_manifest_holds_what_looks_like_a_secret(path: Path) -> None:
    text = path.read_text()
    assert not re.search(
        r"AKIA[0-9A-Z]{16}|-----BEGIN|\b[0-9a-f]{32,}\b|://[^/\s:]+:[^/\s@]+@", text
    )
    for obj in yaml.safe_load_all(text):
        assert not plain_secrets(obj)


def plain_secrets(obj: Any) -> list[str]:
    """Names that sound secret and have a value."""
    if isinstance(obj, list):
        return [name for item in obj for name in plain_secrets(item)]
    if not isinstance(obj, dict):
        return []
    found = [
        key
        for key, value in obj.items()
        if re.search(r"(?i)password|secret_access_key|^auth_token$", key) and isinstance(value, str)
    ]
    return [key for key in found if obj[key]] + plain_secrets(list(obj.values()))


def test_a_value_beside_a_name_that_sounds_secret_is_found() -> None:
    assert plain_secrets({"a": [{"redisPassword": "x"}]}) == ["redisPassword"]


def test_the_budget_keeps_pods_that_are_there() -> None:
    wanted = read("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    found = [pod.owner for pod in PODS if wanted.items() <= pod.labels.items()]
    assert found == ["RayService-replicas"]
