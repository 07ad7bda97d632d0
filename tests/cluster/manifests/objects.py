"""The manifests as objects, and what checks one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import yaml

from tests.cluster.manifests.kuberay import SCHEMAS

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "cluster" / "kuberay"
KUBERNETES = "1.33"
Object = dict[str, Any]
# Where in a KubeRay object the cluster is.
CLUSTERS = {"RayCluster": "spec", "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}


@dataclass(frozen=True)
class PodTemplate:
    """One kind of pod that the manifests bring up.

    Attributes:
        owner: the file's name without suffix, and the group within.
    """

    owner: str
    template: Object

    @property
    def spec(self) -> Object:
        """Of the pod."""
        spec: Object = self.template["spec"]
        return spec

    @property
    def labels(self) -> dict[str, str]:
        """That the manifest gives it; KubeRay adds its own, and keeps these."""
        labels: dict[str, str] = self.template["metadata"]["labels"]
        return labels

    @property
    def containers(self) -> list[Object]:
        """All of the pod's."""
        containers: list[Object] = self.spec["containers"]
        return containers


def read_all(*, with_secrets: bool = True) -> list[Object]:
    """Every object of cluster/kuberay but the kustomization."""
    paths = sorted(FOLDER.glob("*.yaml"))
    found = [obj for path in paths for obj in yaml.safe_load_all(path.read_text())]
    kinds = {"Kustomization"} | (set() if with_secrets else {"Secret"})
    return [obj for obj in found if obj["kind"] not in kinds]


def read(kind: str) -> Object:
    """The one object of a kind."""
    (found,) = [obj for obj in read_all() if obj["kind"] == kind]
    return found


def name_of(obj: Object) -> str:
    """A name for a test's title."""
    metadata = obj["metadata"]
    return f"{obj['kind']}-{metadata.get('name') or metadata['generateName']}"


def cluster_of(obj: Object) -> Object:
    """The Ray cluster that a KubeRay object describes."""
    where = CLUSTERS[obj["kind"]]
    cluster: Object = obj["spec"] if where == "spec" else obj["spec"][where]
    return cluster


def ray_pods(obj: Object) -> list[PodTemplate]:
    """Head and workers of a KubeRay object."""
    cluster, owner = cluster_of(obj), obj["kind"]
    groups = [(g["groupName"], g["template"]) for g in cluster.get("workerGroupSpecs", [])]
    pods = [("head", cluster["headGroupSpec"]["template"]), *groups]
    return [PodTemplate(f"{owner}-{name}", template) for name, template in pods]


def all_pods() -> list[PodTemplate]:
    """Every kind of pod that the manifests bring up."""
    return [pod for obj in read_all() for pod in _pods(obj)]


def _pods(obj: Object) -> Iterator[PodTemplate]:
    if obj["kind"] in CLUSTERS:
        yield from ray_pods(obj)
    if obj["kind"] == "RayJob":
        yield PodTemplate("RayJob-submitter", obj["spec"]["submitterPodTemplate"])
    if obj["kind"] == "StatefulSet":
        yield PodTemplate(name_of(obj), obj["spec"]["template"])


def check(obj: Object) -> None:
    """Hold one object against its definition, with all that Kubernetes defines within.

    Raises:
        jsonschema.ValidationError, kubernetes_validate.ValidationError: it does not fit.
    """
    if obj["kind"] not in CLUSTERS:
        kubernetes_validate.validate(obj, KUBERNETES, strict=True)
        return
    jsonschema.validate(obj, SCHEMAS[obj["kind"]])
    for pod in _pods(obj):
        _check_core("PodTemplate", template=pod.template)
    cluster = cluster_of(obj)
    # KubeRay puts the autoscaler's options into a container, the password into an environment.
    options = dict(cluster.get("autoscalerOptions", {}))
    for own in ("version", "idleTimeoutSeconds", "upscalingMode"):
        options.pop(own, None)
    password = cluster.get("gcsFaultToleranceOptions", {}).get("redisPassword", {"value": ""})
    env = [{"name": "PASSWORD", **password}, *options.pop("env", [])]
    _check_core("Pod", spec={"containers": [{"name": "autoscaler", "env": env, **options}]})


def _check_core(kind: str, **content: Any) -> None:
    whole = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "part"}, **content}
    kubernetes_validate.validate(whole, KUBERNETES, strict=True)
