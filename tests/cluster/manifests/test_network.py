"""Who may talk to whom, told from the policies as a cluster's network reads them."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from cluster.pipeline.config import PipelineConfig
from tests.cluster.manifests.objects import Object, PodTemplate, all_pods, read_all

PODS = {pod.owner: pod for pod in all_pods()}
POLICIES = [obj["spec"] for obj in read_all() if obj["kind"] == "NetworkPolicy"]
OPERATOR = ("kuberay-system", {"app.kubernetes.io/name": "kuberay-operator"})
INGRESS = ("ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx"})
PROMETHEUS = ("monitoring", {"app.kubernetes.io/name": "prometheus"})
STRANGER = ("default", {"app": "anything"})
APPLICATION = ("consilium", {"consilium-access": "predict"})
Peer = tuple[str, dict[str, str]]
SPACE = "kubernetes.io/metadata.name"


def of(owner: str) -> Peer:
    return "consilium", PODS[owner].labels


def selects(selector: Object, labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def lets(peer: Object, other: Peer) -> bool:
    """Whether a rule's peer is this one; addresses outside the cluster are none."""
    if "ipBlock" in peer:
        return False
    space, labels = other
    inside = (
        selects(peer["namespaceSelector"], {SPACE: space})
        if "namespaceSelector" in peer
        else (space == "consilium")
    )
    return inside and selects(peer.get("podSelector", {}), labels)


def open_(direction: str, pod: Peer, other: Peer, port: int) -> bool:
    """Whether some policy lets a connection at a pod through: Ingress to it, or Egress from it."""
    side = {"Ingress": "from", "Egress": "to"}[direction]
    chosen = [p for p in POLICIES if direction in p["policyTypes"]]
    rules: list[Any] = [
        rule
        for policy in chosen
        if selects(policy["podSelector"], pod[1])
        for rule in policy.get(direction.lower(), [])
    ]
    return any(
        any(lets(peer, other) for peer in rule[side])
        and ("ports" not in rule or port in [p["port"] for p in rule["ports"]])
        for rule in rules
    )


def reaches(source: Peer, target: Peer, port: int) -> bool:
    """Whether a connection is let out at one end and in at the other."""
    out = source[0] != "consilium" or open_("Egress", source, target, port)
    return out and (target[0] != "consilium" or open_("Ingress", target, source, port))


def test_nothing_passes_that_is_not_named() -> None:
    (deny,) = [p for p in POLICIES if p["podSelector"] == {} and "egress" not in p]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_policy_is_of_pods_that_there_are(policy: Object) -> None:
    assert any(selects(policy["podSelector"], pod.labels) for pod in PODS.values())


HEAD, WORKER = "RayService-head", "RayService-replicas"
REDIS = "StatefulSet-redis"
ALLOWED = [
    (of(WORKER), of(HEAD), 6379),
    (of(HEAD), of(WORKER), 31234),
    (of(WORKER), of(WORKER), 31234),
    (of("RayCluster-gpu"), of("RayCluster-head"), 6379),
    (of("RayJob-submitter"), of("RayJob-head"), 8265),
    (of(HEAD), of(REDIS), 6379),
    (OPERATOR, of(HEAD), 8265),
    (OPERATOR, of("RayJob-head"), 8265),
    (OPERATOR, of(HEAD), 8000),
    (INGRESS, of(WORKER), 8000),
    (APPLICATION, of(WORKER), 8000),
    (of("RayCluster-head"), of(WORKER), 8000),  # a pipeline's gate and canary
    (PROMETHEUS, of(WORKER), 8080),
    (PROMETHEUS, of("RayCluster-cpu"), 8080),
]
REFUSED = [
    (STRANGER, of(WORKER), 8000),
    (STRANGER, of(HEAD), 8265),
    (STRANGER, of(HEAD), 6379),
    (INGRESS, of(HEAD), 8265),
    (INGRESS, of(WORKER), 8404),
    (INGRESS, of(WORKER), 9101),
    (INGRESS, of("RayCluster-head"), 8000),
    (APPLICATION, of(HEAD), 8265),
    (APPLICATION, of("RayCluster-head"), 8000),
    (of("RayCluster-head"), of(WORKER), 6379),
    (of("RayCluster-gpu"), of(WORKER), 8000),
    (of("RayJob-head"), of(WORKER), 8000),
    (of(WORKER), of(REDIS), 6379),
    (of("RayCluster-head"), of(REDIS), 6379),
    (of("RayJob-head"), of(HEAD), 6379),
    (of("RayCluster-gpu"), of(HEAD), 6379),
    (of(REDIS), of(HEAD), 6379),
    (OPERATOR, of(REDIS), 6379),
    (PROMETHEUS, of(HEAD), 8265),
]


@pytest.mark.parametrize(("source", "target", "port"), ALLOWED)
def test_a_connection_that_is_needed_passes(source: Peer, target: Peer, port: int) -> None:
    assert reaches(source, target, port)


@pytest.mark.parametrize(("source", "target", "port"), REFUSED)
def test_a_connection_that_nobody_needs_does_not(source: Peer, target: Peer, port: int) -> None:
    assert not reaches(source, target, port)


def reaches_address(source: Peer, address: str, port: int) -> bool:
    """Whether a pod's connection to an address that no pod has is let out."""
    return any(
        ip_address(address) in ip_network(peer["ipBlock"]["cidr"])
        and not any(ip_address(address) in ip_network(n) for n in peer["ipBlock"].get("except", []))
        and port in [p["port"] for p in rule["ports"]]
        for policy in POLICIES
        if "Egress" in policy["policyTypes"] and selects(policy["podSelector"], source[1])
        for rule in policy.get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    )


@pytest.mark.parametrize("owner", PODS)
def test_the_clouds_metadata_is_shut_and_redis_sees_no_outside(owner: str) -> None:
    for metadata in ("169.254.169.254", "169.254.170.23"):
        assert not any(reaches_address(of(owner), metadata, port) for port in (53, 80, 443))
    outside = reaches_address(of(owner), "203.0.113.7", 443)
    assert outside is (owner != REDIS)
    assert not reaches_address(of(owner), "203.0.113.7", 53)


@pytest.mark.parametrize("owner", PODS)
@pytest.mark.parametrize("names", ["kube-dns", "node-local-dns"])
def test_every_pod_asks_for_names(owner: str, names: str) -> None:
    assert reaches(of(owner), ("kube-system", {"k8s-app": names}), 53)
    assert not reaches(of(owner), ("kube-system", {"k8s-app": names}), 8000)
    assert reaches_address(of(owner), "169.254.20.10", 53)


def test_the_admins_key_is_where_pipelines_begin_and_nowhere_else() -> None:
    holders = [
        owner
        for owner, pod in PODS.items()
        for container in pod.containers
        for source in container.get("envFrom", [])
        if source["secretRef"]["name"] == "consilium-pipeline"
    ]
    assert holders == ["RayCluster-head"]
    (secret,) = [o for o in read_all() if o["metadata"].get("name") == "consilium-pipeline"]
    assert list(secret["stringData"]) == [PipelineConfig().api_key_env]


def pods_on(port: int) -> list[PodTemplate]:
    """Those that say they listen there."""
    return [
        pod
        for pod in PODS.values()
        for container in pod.containers
        if port in [p["containerPort"] for p in container.get("ports", [])]
    ]


def test_only_the_services_pods_say_that_they_serve() -> None:
    assert {pod.owner for pod in pods_on(8000)} == {HEAD, WORKER}
