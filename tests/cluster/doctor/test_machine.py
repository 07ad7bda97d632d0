"""What a machine's numbers mean, and the mend for each that is not well."""

import pytest

from cluster.doctor.findings import Finding
from cluster.doctor.machine import (
    GIB,
    judge,
    judge_disk,
    judge_gpus,
    judge_memory,
    judge_open_files,
    judge_shared_memory,
    judge_versions,
)
from cluster.doctor.measure import SHARED_MEMORY, Gpus, Measured

VERSIONS = {
    "ray": "2.60.0",
    "python": "3.11.7",
    "torch": "2.15.0",
    "timm": "1.0.31",
    "onnxruntime": "1.31.1",
    "optuna": "5.0.0",
}
WELL = Measured(
    versions=VERSIONS,
    gpus=Gpus(None),
    free={"cache": ("/cache", 100 * GIB), "output": ("/out", 100 * GIB)},
    shared_memory=16 * GIB,
    open_files=(1024, 1048576),
    memory=64 * GIB,
)


def test_a_fit_machine_needs_no_mend() -> None:
    findings = judge(WELL, VERSIONS, ray_gpus=0, object_store=8 * GIB, needed={"cache": GIB})
    assert {(finding.level, finding.mend) for finding in findings} == {("ok", "")}
    assert [finding.check for finding in findings] == [
        "versions",
        "packages",
        "GPUs",
        "disk of the cache",
        "disk of the output",
        "shared memory",
        "open files",
        "memory",
    ]


@pytest.mark.parametrize("name", ["ray", "python"])
def test_another_ray_or_python_is_broken(name: str) -> None:
    versions, packages = judge_versions({**VERSIONS, name: "3.1.0"}, VERSIONS)
    assert versions.level == "broken"
    assert versions.mend == f"install the driver's {name} {VERSIONS[name]}"
    assert packages.level == "ok"


def test_another_package_is_advice_and_none_is_broken() -> None:
    _, other = judge_versions({**VERSIONS, "timm": "1.0.0"}, VERSIONS)
    assert (other.level, "the driver has timm 1.0.31" in other.mend) == ("advice", True)
    _, missing = judge_versions({**VERSIONS, "timm": None}, VERSIONS)
    assert (missing.level, missing.seen) == ("broken", "no timm")


def test_shared_memory_smaller_than_the_object_store_is_broken() -> None:
    finding = judge_shared_memory(64 * 2**20, 2 * GIB)
    assert finding == Finding(
        "shared memory",
        "broken",
        f"{SHARED_MEMORY} 0.06 GiB, Ray's object store 2.00 GiB: objects go to the disk",
        "enlarge it: docker run --shm-size=2.2g, or an emptyDir of medium Memory",
    )
    assert judge_shared_memory(64 * 2**20, 2**20).level == "advice"
    assert judge_shared_memory(None, GIB).level == "ok"


@pytest.mark.parametrize(
    ("soft", "hard", "level"),
    [
        (1024, 1024, "broken"),
        (1024, 4095, "broken"),
        (4096, 4096, "advice"),
        (1024, 65536, "ok"),
        (1024, -1, "ok"),
    ],
)
def test_open_files_count_as_far_as_they_can_be_raised(soft: int, hard: int, level: str) -> None:
    finding = judge_open_files(soft, hard)
    assert finding.level == level
    assert ("ulimit -n 65536" in finding.mend) == (level != "ok")


def test_a_disk_must_have_room_for_the_images() -> None:
    assert judge_disk("cache", "/c", 4 * GIB).level == "broken"
    assert judge_disk("cache", "/c", 6 * GIB).level == "ok"
    finding = judge_disk("cache", "/c", 6 * GIB, needed=20 * GIB)
    assert finding.seen == "6.0 GiB free at /c, the images need 20 GiB"
    assert "21.0 GiB are needed" in finding.mend


@pytest.mark.parametrize(("total", "level"), [(GIB // 2, "broken"), (2 * GIB, "advice")])
def test_little_memory(total: int, level: str) -> None:
    assert judge_memory(total).level == level


@pytest.mark.parametrize(
    ("gpus", "ray_gpus", "level", "mend"),
    [
        (Gpus(None), 1, "broken", "install NVIDIA's driver"),
        (Gpus(("580.65",), "13.0", usable=True), 2, "broken", "--num-gpus=1"),
        (Gpus(("580.65",), None), 1, "broken", "install a torch with CUDA"),
        (Gpus(("470.82",), "12.6", usable=False), 1, "broken", "update the driver to 525.60"),
        (Gpus(("580.65",), "13.0", usable=False), 1, "broken", "torch cannot use them"),
        (Gpus(("580.65", "580.65"), "13.0", usable=True), 1, "advice", "does not use all"),
        (Gpus(("580.65",), "13.0", usable=True), 1, "ok", ""),
    ],
    ids=["no driver", "too many", "no CUDA", "old", "unusable", "unused", "well"],
)
def test_gpus_must_be_seen_by_ray_driver_and_torch(
    gpus: Gpus, ray_gpus: float, level: str, mend: str
) -> None:
    finding = judge_gpus(gpus, ray_gpus)
    assert finding.level == level
    assert mend in finding.mend
