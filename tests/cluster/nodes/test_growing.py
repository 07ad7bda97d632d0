"""A cluster without a place for a trial starts nodes for a search that asks for them."""

import json
from pathlib import Path

import pytest
import yaml

from search.study.records import StudyFolder
from tests.cluster.nodes.machines import PYTHON, network
from tests.cluster.nodes.rays import start_rays
from tests.search.study.test_run import a_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# Ray's own autoscaler, whose provider starts raylets on the head's machine.
SCALING = {
    "cluster_name": "growing",
    "max_workers": 2,
    "idle_timeout_minutes": 5,
    "upscaling_speed": 1.0,
    "provider": {"type": "fake_multinode"},
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "head_node_type": "head",
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{
        f"{name}_commands": []
        for name in (
            "initialization",
            "setup",
            "head_setup",
            "worker_setup",
            "head_start_ray",
            "worker_start_ray",
        )
    },
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
}


def test_a_search_has_a_cluster_grow_from_nothing(tmp_path: Path) -> None:
    config = a_study(tmp_path, trials=3, resources={"grow": 2})
    document = tmp_path / "config.yaml"
    document.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True)))
    scaling = tmp_path / "scaling.json"
    scaling.write_text(json.dumps(SCALING))
    grown = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    with network() as net:
        scales = [f"--autoscaling-config={scaling}"]
        rays = start_rays(net, tmp_path, workers=0, head_words=scales, environment=grown)
        words = ["-m", "cluster", "search", str(document), "--quiet", "--address", rays.address]
        rays.head.ask(PYTHON, *words, environment=rays.environment, timeout=400)
        assert rays.alive() >= 2
    records = StudyFolder(config.study_folder).records()
    assert {record.status for record in records} <= {"complete", "pruned"}
    assert len(records) == 3
