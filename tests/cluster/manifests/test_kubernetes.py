"""Every manifest is what Kubernetes and KubeRay take; one that is broken is refused."""

import copy
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.cluster.manifests.objects import (
    FOLDER,
    Object,
    check,
    cluster_of,
    name_of,
    ray_pods,
    read,
    read_all,
)

REFUSED = (jsonschema.ValidationError, kubernetes_validate.ValidationError)


@pytest.mark.parametrize("obj", read_all(), ids=name_of)
def test_a_manifest_fits_its_definition(obj: Object) -> None:
    check(obj)


@pytest.mark.parametrize("obj", read_all(), ids=name_of)
def test_a_field_that_nobody_knows_is_refused(obj: Object) -> None:
    broken = copy.deepcopy(obj)
    broken.get("spec", broken)["replicaz"] = 1
    with pytest.raises(REFUSED, match=r"replicaz"):
        check(broken)


def set_at(path: str, value: Any) -> Callable[[Object], None]:
    """What writes a value at a path of keys and indices."""

    def change(obj: Any) -> None:
        *way, last = [int(key) if key.isdigit() else key for key in path.split("/")]
        for key in way:
            obj = obj[key]
        obj[last] = value

    return change


HEAD = "headGroupSpec"
POD = "headGroupSpec/template/spec/containers/0"
BREAKS = [
    ("RayCluster", f"spec/{HEAD}/rayStartParams/num-cpus", 0),  # KubeRay takes texts
    ("RayCluster", "spec/workerGroupSpecs/1/maxReplicas", "8"),
    ("RayCluster", "spec/workerGroupSpecs/0/minReplica", 1),
    ("RayCluster", "spec/autoscalerOptions/version", "v3"),
    ("RayCluster", "spec/autoscalerOptions/resources/limit", {}),
    ("RayCluster", "spec/authOptions/mode", "basic"),
    ("RayCluster", f"spec/{POD}/resources/limit", {"cpu": "1"}),
    ("RayCluster", f"spec/{POD}/livenessProbe/httpGet/port", {"number": 1}),
    ("RayJob", "spec/shutdownAfterJobFinishes", "yes"),
    ("RayJob", "spec/submissionMode", "CronMode"),
    ("RayJob", "spec/submitterPodTemplate/spec/container", []),
    ("RayJob", "spec/rayClusterSpec/workerGroups", []),
    ("RayService", "spec/serveConfigV2", {"applications": []}),
    ("RayService", "spec/upgradeStrategy/type", "Rolling"),
    ("RayService", "spec/rayClusterConfig/gcsFaultToleranceOptions/redisAdress", "redis:6379"),
    (
        "RayService",
        "spec/rayClusterConfig/gcsFaultToleranceOptions/redisPassword/valueFrom/secret",
        {},
    ),
    ("RayService", f"spec/rayClusterConfig/{POD}/volumeMounts/0/readonly", True),
    ("StatefulSet", "spec/template/spec/containers/0/image", 7),
    ("PodDisruptionBudget", "spec/minAvailible", 1),
    ("ConfigMap", "data/port", 6379),
]


@pytest.mark.parametrize(("kind", "path", "value"), BREAKS, ids=[b[1] for b in BREAKS])
def test_a_manifest_with_one_mistake_is_refused(kind: str, path: str, value: Any) -> None:
    broken = copy.deepcopy(read(kind))
    set_at(path, value)(broken)
    said = rf"{re.escape(repr(value))}|{path.rpartition('/')[2]}"
    with pytest.raises(REFUSED, match=said):
        check(broken)


def test_a_group_without_bounds_is_refused() -> None:
    broken = copy.deepcopy(read("RayCluster"))
    del broken["spec"]["workerGroupSpecs"][0]["maxReplicas"]
    with pytest.raises(REFUSED, match=r"maxReplicas"):
        check(broken)


def test_fault_tolerance_may_be_left_out() -> None:
    free = copy.deepcopy(read("RayService"))
    del cluster_of(free)["gcsFaultToleranceOptions"]
    check(free)


def test_the_kustomization_has_what_the_others_stand_on_and_starts_nothing() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    kinds = [obj["kind"] for name in listed for obj in yaml.safe_load_all(file(name))]
    assert kinds.count("PersistentVolumeClaim") == 2
    assert {"Namespace", "NetworkPolicy", "StatefulSet", "Service", "ConfigMap"} <= set(kinds)
    assert not {"RayJob", "RayCluster", "RayService", "Secret"} & set(kinds)


def file(name: str) -> str:
    return (FOLDER / name).read_text()


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_reads_the_kustomization_as_it_is_written(tmp_path: Path) -> None:
    command = ["kubectl", "kustomize", str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    listed = yaml.safe_load(file("kustomization.yaml"))["resources"]
    written = [obj for name in listed for obj in yaml.safe_load_all(file(name))]
    built = list(yaml.safe_load_all(done.stdout))
    assert sorted(map(name_of, built)) == sorted(map(name_of, written))
    assert all(obj in built for obj in written)


def test_the_head_keeps_the_books_and_workers_come_and_go_within_bounds() -> None:
    for kind in ("RayCluster", "RayJob", "RayService"):
        cluster = cluster_of(read(kind))
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert cluster["enableInTreeAutoscaling"] is True
        assert cluster["autoscalerOptions"]["version"] == "v2"
        assert cluster["autoscalerOptions"]["idleTimeoutSeconds"] > 0
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] < 100


def test_workers_with_a_gpu_ask_for_it_and_stand_where_there_is_one() -> None:
    found = [pod for kind in ("RayCluster", "RayJob") for pod in ray_pods(read(kind))]
    gpu = [pod for pod in found if pod.owner.endswith("-gpu")]
    assert len(gpu) == 2
    for pod in gpu:
        assert pod.containers[0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
        assert pod.spec["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
        assert pod.spec["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_a_search_as_a_job_takes_its_cluster_away_and_a_retry_follows_a_fault() -> None:
    spec = read("RayJob")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["backoffLimit"] > 0
    assert spec["activeDeadlineSeconds"] > 0
