"""The doctor's rounds: every node of a cluster is asked at once, and the driver."""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from cluster.connect import connected
from cluster.doctor.driver import check_driver, check_ports, marked
from cluster.doctor.findings import Finding, Row, refused
from cluster.doctor.machine import judge
from cluster.doctor.measure import existing, measure, read_versions
from cluster.doctor.needs import cache_bytes
from cluster.doctor.places import check_places
from search.config import ExperimentConfig
from search.errors import ClusterError

PATIENCE = 120.0  # seconds for all nodes; a fresh worker and torch take some
DRIVER = "driver"


def examine(config: ExperimentConfig | None, address: str | None) -> list[Row]:
    """All findings: of each node, then of the driver.

    Args:
        address: of an existing cluster; if absent, one is started here, and the usual ports are
            looked at.

    Raises:
        ClusterError: there is no connection to the cluster.
    """
    rows = [] if config is None else [Row(DRIVER, found) for found in check_driver(config)]
    if address or os.environ.get("RAY_ADDRESS"):
        return _visit(config, address) + rows
    rows += [Row(DRIVER, found) for found in check_ports()]
    failed: list[Finding] = []
    with refused("Ray", "free memory and disk, and see whether /tmp can be written", failed):
        rows = _visit(config, None) + rows
    return rows + [Row(DRIVER, found) for found in failed]


def _visit(config: ExperimentConfig | None, address: str | None) -> list[Row]:
    with connected(address, client=True, grows=True) as cluster:
        rows = [Row(DRIVER, Finding("Ray", "ok", cluster.describe()))]
        with nullcontext() if config is None else marked(config) as mark:
            return _ask_nodes(config, mark) + rows


def verdict(rows: list[Row]) -> None:
    """Refuse where a check failed.

    Raises:
        ClusterError: so many failed, and the first with its mend.
    """
    broken = [row for row in rows if row.finding.level == "broken"]
    if broken:
        first = broken[0].finding
        raise ClusterError(
            f"{len(broken)} of {len(rows)} checks failed, the first: {broken[0].where}, "
            f"{first.check}: {first.seen}; {first.mend}"
        )


def _ask_nodes(config: ExperimentConfig | None, mark: str | None) -> list[Row]:
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    needed = 0 if config is None else cache_bytes(config)
    answers = {
        _ask(node, config, mark, needed): name
        for node, name in zip(nodes, _names(nodes), strict=True)
    }
    ready, _ = ray.wait([*answers], num_returns=len(answers), timeout=PATIENCE)
    done = {*ready}
    return [
        Row(name, found)
        for answer, name in answers.items()
        for found in (_answer(answer) if answer in done else [_silent()])
    ]


def _ask(
    node: dict[str, Any], config: ExperimentConfig | None, mark: str | None, needed: int
) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
    task: Any = ray.remote(**options)(examine_node)
    return task.remote(config, mark, about(node), read_versions(), needed)


def about(node: Mapping[str, Any]) -> dict[str, Any]:
    """What Ray says of a node: its GPUs, its object store in bytes, and its session's folder."""
    socket = node.get("ObjectStoreSocketName") or ""
    return {
        "ray_gpus": float(node["Resources"].get("GPU", 0)),
        "object_store": int(node["Resources"].get("object_store_memory", 0)),
        "session": str(Path(socket).parents[1]) if socket.startswith("/") else "/tmp",  # noqa: S108
    }


def examine_node(
    config: ExperimentConfig | None,
    mark: str | None,
    said: Mapping[str, Any],
    driver: Mapping[str, str | None],
    needed: int,
) -> list[Finding]:
    """All findings on the machine that this is called on; see `about` for what Ray has said."""
    folders = {"Ray folder": Path(said["session"])}
    if config is not None:
        folders |= {"cache": config.cache_folder, "output": config.output}
    seen = measure({name: existing(path) for name, path in folders.items()})
    findings = judge(
        seen,
        driver,
        ray_gpus=said["ray_gpus"],
        object_store=said["object_store"],
        needed={"cache": needed},
    )
    return findings if config is None else [*findings, *check_places(config, mark)]


def _answer(answer: Any) -> list[Finding]:
    import ray

    try:
        findings: list[Finding] = ray.get(answer)
    except ray.exceptions.RayError as error:
        return [_failed(error)]
    return findings


def _failed(error: Exception) -> Finding:
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    seen = f"{type(cause).__name__}: {lines[-1].strip() if lines else ''}"[:200]
    mend = "install the driver's Consilium there, or use one image everywhere; see the node's logs"
    return Finding("Consilium", "broken", seen, mend)


def _silent() -> Finding:
    seen = f"no answer within {PATIENCE:g} s"
    return Finding("Consilium", "broken", seen, "see the node's load and its logs")


def _names(nodes: list[dict[str, Any]]) -> list[str]:
    """Addresses; with a node's number where several share one."""
    addresses = [str(node["NodeManagerAddress"]) for node in nodes]
    return [
        f"{address} {node['NodeID'][:6]}" if addresses.count(address) > 1 else address
        for node, address in zip(nodes, addresses, strict=True)
    ]
