"""How many trials fit is counted node by node."""

from types import SimpleNamespace
from typing import Any

import pytest

from search.config import ResourcesConfig
from search.errors import StudyError
from search.study import resources
from search.study.resources import Slots


class FakeRay:
    def __init__(self, *nodes: dict[str, float]) -> None:
        self._nodes = nodes

    def nodes(self) -> list[dict[str, Any]]:
        dead = {"Alive": False, "NodeID": "gone", "Resources": {"CPU": 99, "GPU": 99}}
        alive = (
            {"Alive": True, "NodeID": str(number), "Resources": node}
            for number, node in enumerate(self._nodes)
        )
        return [dead, *alive]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "0")

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {name: sum(n.get(name, 0) for n in self._nodes) for name in ("CPU", "GPU")}


@pytest.mark.parametrize(
    ("wanted", "nodes", "slots"),
    [
        ({"cpu": 2}, [{"CPU": 3}, {"CPU": 3}], 2),
        ({"cpu": 1}, [{"CPU": 3}, {"CPU": 3}], 6),
        ({"cpu": 1, "gpu": 0.4}, [{"CPU": 16, "GPU": 2}], 4),
        ({"cpu": 1, "gpu": 0.25}, [{"CPU": 3, "GPU": 2}], 3),
        ({"cpu": 1, "gpu": 1, "workers": 2}, [{"CPU": 8, "GPU": 3}, {"CPU": 8, "GPU": 2}], 2),
    ],
)
def test_no_trial_lies_across_two_nodes(
    monkeypatch: pytest.MonkeyPatch,
    wanted: dict[str, Any],
    nodes: list[dict[str, float]],
    slots: int,
) -> None:
    monkeypatch.setattr(resources, "ray", FakeRay(*nodes))
    assert Slots(ResourcesConfig.model_validate(wanted)).count() == slots


@pytest.mark.parametrize(
    ("here", "cpus"), [({"CPU": 8, "GPU": 1}, 8), ({"CPU": 8}, 0), ({}, 0), ({"GPU": 4}, 0)]
)
def test_only_where_trials_train_has_the_driver_work_for_its_cpus(
    monkeypatch: pytest.MonkeyPatch, here: dict[str, float], cpus: int
) -> None:
    monkeypatch.setattr(resources, "ray", FakeRay(here, {"CPU": 16, "GPU": 4}))
    assert Slots(ResourcesConfig(cpu=2, gpu=0.5)).cpus_here() == cpus


def test_a_node_that_joins_brings_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "REFRESH", 0.0)
    monkeypatch.setattr(resources, "ray", FakeRay({"CPU": 1}))
    slots = Slots(ResourcesConfig())
    monkeypatch.setattr(resources, "ray", FakeRay({"CPU": 1}, {"CPU": 4}))
    assert slots.count() == 5


def test_what_fits_nowhere_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "ray", FakeRay({"CPU": 4}, {"CPU": 4}))
    with pytest.raises(StudyError, match=r"needs 8 CPUs and 0 GPUs on one node, Ray has 8 CPUs"):
        Slots(ResourcesConfig(cpu=8))


def test_what_was_asked_of_the_cluster_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[dict[str, float]]] = []

    def ask(*, bundles: list[dict[str, float]]) -> None:
        asked.append(bundles)

    monkeypatch.setattr(resources, "request_resources", ask)
    monkeypatch.setattr(resources, "ray", FakeRay({"CPU": 0}))
    with pytest.raises(StudyError, match=r"needs 2 CPUs .* lower resources in the config$"):
        Slots(ResourcesConfig(cpu=2, grow=3), within=0.0)
    assert asked == [[{"CPU": 2.0}] * 3, []]
    monkeypatch.setattr(resources, "ray", FakeRay({"CPU": 4}))
    slots = Slots(ResourcesConfig(cpu=2, gpu=0, grow=1))
    slots.close()
    assert asked[2:] == [[{"CPU": 2.0}], []]
