"""Replicas come with the load and go after it; seen as an operator sees it."""

import time

import pytest
from ray import serve
from ray.serve._private.common import ReplicaState

from serving.config import ServingConfig
from serving.start import APPLICATION, start_service
from tests.servers import free_port
from tests.serving.faults.conftest import FILES, Bundles, replicas, serving_ray, wait_until
from tests.serving.faults.load import Load

pytestmark = pytest.mark.slow
# What is measured is told to the controller each half second instead of each ten.
QUICK = {
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_MIN_HANDLE_METRICS_TIMEOUT_S": "1",
}


def running() -> int:
    """Replicas that `serve status` shows as running."""
    deployments = serve.status().applications[APPLICATION].deployments
    return deployments["ensemble"].replica_states.get(ReplicaState.RUNNING, 0)


def test_replicas_come_with_the_load_and_go_after_it(bundles: Bundles) -> None:
    config = ServingConfig(
        bundle=bundles.old,
        port=free_port(),
        min_replicas=1,
        max_replicas=2,
        target_ongoing_requests=1,
        upscale_delay_s=0.5,
        downscale_delay_s=1,
        explain=None,
    )
    with serving_ray(num_cpus=2, environment=QUICK):
        url = start_service(config)
        assert running() == 1
        [first] = replicas()
        with Load(url, FILES).going(clients=8) as load:
            wait_until(lambda: running() == 2)
            two = time.monotonic()
            load.wait_for(100)
            wait_until(lambda: first in replicas() and len(replicas()) == 2)
        with Load(url, FILES, pause_s=0.5).going(clients=1) as trickle:  # while one is taken away
            wait_until(lambda: running() == 1)
            trickle.wait_for(5)
    assert set(load.statuses(two)) == {(200, "")}
    assert set(load.statuses()) | set(trickle.statuses()) == {(200, "")}
