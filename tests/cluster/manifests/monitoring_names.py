"""The names of metrics: those that rules and dashboards ask for, and those that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from search.tracking.prometheus import FAMILIES
from serving.monitor.families import Family, Spread
from serving.monitor.metrics import Metrics

FOLDER = Path(__file__).parents[3] / "cluster" / "monitoring"
BOARDS = ("search", "service")
OTHERS = {"le", "ray_io_cluster", "job", "instance", "WorkerId"}  # labels that all may have

# Of Ray, Serve and Prometheus itself: the slow test compares them with a real scrape.
SEEN = frozenset(
    [
        "process_start_time_seconds",
        "ray_gcs_storage_operation_latency_ms_bucket",
        "ray_node_cpu_count",
        "ray_node_cpu_utilization",
        "ray_node_disk_utilization_percentage",
        "ray_node_mem_total",
        "ray_node_mem_used",
        "ray_object_store_available_memory",
        "ray_object_store_used_memory",
        "ray_resources",
        "ray_serve_application_status",
        "ray_serve_autoscaling_target_replicas",
        "ray_serve_deployment_queued_queries",
        "ray_serve_deployment_replica_healthy",
        "ray_serve_deployment_replica_starts_total",
        "ray_serve_http_request_latency_ms_bucket",
        "ray_serve_num_http_requests_total",
        "ray_serve_replica_processing_queries",
    ]
)
UNSEEN = {  # these do not come up in the slow test
    "up": "Prometheus' own",
    "ray_node_gpus_utilization": "Ray's reporter names it; it needs a GPU",
    "ray_node_gram_used": "Ray's reporter names it; it needs a GPU",
    "ray_node_gram_available": "Ray's reporter names it; it needs a GPU",
    "ray_node_failure_total": "the GCS counts it as a node ends",
    "ray_memory_manager_worker_eviction_total": "counted as memory runs out; Ray's board has it",
    "ray_consilium_novel_total": "a bundle without a reference finds nothing novel",
}


def own_families() -> dict[str, tuple[str, ...]]:
    """Labels by name of all metrics of this project's, as Ray exports them."""
    served = [value for value in vars(Metrics()).values() if isinstance(value, Family)]
    found = {_exported(f.name, isinstance(f, Spread)): f.keys for f in served}
    for name, family in FAMILIES.items():
        found[_exported(name, family.kind == "Histogram")] = ("study", *family.keys)
    return found


def _exported(name: str, spread: bool) -> str:
    return f"ray_{name}" + ("_bucket" if spread else "")


def alerts() -> list[dict[str, Any]]:
    """All rules."""
    groups = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def board(name: str) -> dict[str, Any]:
    """A dashboard."""
    document: dict[str, Any] = json.loads((FOLDER / "grafana" / f"{name}.json").read_text())
    return document


def shown(name: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Title, legend and expression of all that a dashboard asks for, with All of each variable."""
    for panel in board(name)["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "1m")
            yield (
                (panel["title"], target["legendFormat"]),
                re.sub(r"\$\w+", ".*", expression),
            )


def metrics_of(expression: str) -> set[str]:
    """Names of the metrics in an expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", re.sub(r'"[^"]*"', "", expression))
    bare = re.sub(r"\b(by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)", " ", bare)
    return {
        word for word in re.findall(r"[a-z_][a-z0-9_]*", bare) if word.startswith(("ray_", "proc"))
    } | ({"up"} if re.search(r"\bup\b", bare) else set())


def labels_of(expression: str) -> dict[str, set[str]]:
    """Labels that are selected by, by metric."""
    found: dict[str, set[str]] = {}
    for name, inside in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
        found.setdefault(name, set()).update(re.findall(r"(\w+)\s*[=!]", inside))
    return found
