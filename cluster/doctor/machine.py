"""Judges one machine by what was measured: pure functions from numbers to findings."""

import re
from collections.abc import Mapping

from cluster.doctor.findings import Finding, judged
from cluster.doctor.measure import PACKAGES, SHARED_MEMORY, Gpus, Measured

GIB = 2**30
LEAST_FREE = 5 * GIB  # of each disk; Ray's session, a study and its weights take some
LEAST_SHARED = GIB  # Docker gives 64 MiB
LEAST_MEMORY, ENOUGH_MEMORY = GIB, 4 * GIB
# Ray opens a socket a worker and a file a log: it warns below 4096, its manual asks for 65536.
LEAST_FILES, ENOUGH_FILES = 4096, 65536
# The oldest Linux driver of each CUDA's major version: NVIDIA, "CUDA Compatibility", table 2.
OLDEST_DRIVER = {11: (450, 80), 12: (525, 60), 13: (580, 0)}


def judge(
    seen: Measured,
    driver: Mapping[str, str | None],
    *,
    ray_gpus: float,
    object_store: int,
    needed: Mapping[str, int] | None = None,
) -> list[Finding]:
    """All findings of one machine.

    Args:
        driver: versions on the machine that this is asked from.
        ray_gpus: that Ray hands out on this node.
        object_store: bytes of Ray's object store on this node.
        needed: bytes that are going to be written, by what the folder is for.
    """
    disks = [
        judge_disk(name, path, free, (needed or {}).get(name, 0))
        for name, (path, free) in seen.free.items()
    ]
    return [
        *judge_versions(seen.versions, driver),
        judge_gpus(seen.gpus, ray_gpus),
        *disks,
        judge_shared_memory(seen.shared_memory, object_store),
        judge_open_files(*seen.open_files),
        judge_memory(seen.memory),
    ]


def judge_versions(
    here: Mapping[str, str | None], driver: Mapping[str, str | None]
) -> list[Finding]:
    """Ray and Python must be the driver's; packages must be there and had better be the same."""
    must = [name for name in ("ray", "python") if here[name] != driver[name]]
    must_seen = ", ".join(f"{name} {here[name]}" for name in ("ray", "python"))
    mend = " and ".join(f"{name} {driver[name]}" for name in must)
    findings = [judged("versions", must_seen, f"install the driver's {mend}", well=not must)]
    missing = [name for name in PACKAGES if here[name] is None]
    if missing:
        mend = f"pip install {' '.join(missing)}, or use an image that has Consilium"
        return [*findings, Finding("packages", "broken", f"no {', '.join(missing)}", mend)]
    seen = ", ".join(f"{name} {here[name]}" for name in PACKAGES)
    other = [name for name in PACKAGES if here[name] != driver[name]]
    mend = "the driver has " + ", ".join(f"{name} {driver[name]}" for name in other)
    mend += "; use one image everywhere"
    return [*findings, judged("packages", seen, mend, well=not other, otherwise="advice")]


def judge_gpus(gpus: Gpus, ray_gpus: float) -> Finding:
    """Ray's count, the driver's cards and torch's CUDA must agree."""
    if gpus.drivers is None:
        mend = "install NVIDIA's driver, or start Ray here with --num-gpus=0"
        seen = f"{ray_gpus:g} to Ray" + (", no nvidia-smi" if ray_gpus else "")
        return judged("GPUs", seen, mend, well=not ray_gpus)
    cards = len(gpus.drivers)
    driver = gpus.drivers[0] if cards else "none"
    seen = f"{ray_gpus:g} to Ray, {cards} cards, driver {driver}, torch's CUDA {gpus.torch_cuda}"
    if ray_gpus > cards:
        return Finding("GPUs", "broken", seen, f"start Ray here with --num-gpus={cards}")
    if cards and gpus.torch_cuda is None:
        mend = "install a torch with CUDA; this one has none, or does not import"
        return Finding("GPUs", "broken", seen, mend)
    if cards and (oldest := _too_old(driver, gpus.torch_cuda or "")):
        mend = f"update the driver to {oldest} or newer, or install a torch of an older CUDA"
        return Finding("GPUs", "broken", seen, mend)
    if cards and not gpus.usable:
        mend = "torch cannot use them: check nvidia-smi and the container's --gpus all"
        return Finding("GPUs", "broken", seen, mend)
    mend = "Ray does not use all: start it with --num-gpus, if it shall"
    return judged("GPUs", seen, mend, well=ray_gpus == cards, otherwise="advice")


def _too_old(driver: str, cuda: str) -> str | None:
    """The oldest driver that would do, where this one does not."""
    oldest = OLDEST_DRIVER.get(int(cuda.partition(".")[0] or 0))
    has = tuple(int(part) for part in re.findall(r"\d+", driver)[:2])
    return ".".join(map(str, oldest)) if oldest and has and has < oldest else None


def judge_disk(name: str, path: str, free: int, needed: int = 0) -> Finding:
    """At least 5 GiB, or what is going to be written and a GiB."""
    least = max(LEAST_FREE, needed + GIB if needed else 0)
    seen = f"{free / GIB:.1f} GiB free at {path}"
    if needed:
        seen += f", the images need {needed / GIB:.2g} GiB"
    mend = f"free some: {least / GIB:.1f} GiB are needed, or name a folder on another disk"
    return judged(f"disk of the {name}", seen, mend, well=free >= least)


def judge_shared_memory(size: int | None, object_store: int) -> Finding:
    """Where /dev/shm is smaller than the object store, Ray falls back to the disk."""
    if size is None:
        return Finding("shared memory", "ok", "this system has no /dev/shm")
    seen = f"{SHARED_MEMORY} {size / GIB:.2f} GiB, Ray's object store {object_store / GIB:.2f} GiB"
    wanted = max(object_store * 1.1, LEAST_SHARED) / GIB
    mend = f"enlarge it: docker run --shm-size={wanted:.1f}g, or an emptyDir of medium Memory"
    if size < object_store:
        return Finding("shared memory", "broken", f"{seen}: objects go to the disk", mend)
    return judged("shared memory", seen, mend, well=size >= LEAST_SHARED, otherwise="advice")


def judge_open_files(soft: int, hard: int) -> Finding:
    """The soft limit counts as far as it can be raised: Ray raises it itself.

    Args:
        soft, hard: limits of a process; -1 is none.
    """
    bound = float("inf") if -1 in (soft, hard) else max(soft, hard)
    seen = "unlimited" if bound == float("inf") else f"{soft}, up to {hard}"
    mend = f"ulimit -n {ENOUGH_FILES} before ray start; in Docker --ulimit nofile={ENOUGH_FILES}"
    return judged(
        "open files",
        seen,
        mend,
        well=bound >= ENOUGH_FILES,
        otherwise="broken" if bound < LEAST_FILES else "advice",
    )


def judge_memory(total: int) -> Finding:
    """A trial's process takes about a GiB."""
    seen = f"{total / GIB:.1f} GiB"
    mend = f"give the machine or container {ENOUGH_MEMORY / GIB:.0f} GiB or more"
    return judged(
        "memory",
        seen,
        mend,
        well=total >= ENOUGH_MEMORY,
        otherwise="broken" if total < LEAST_MEMORY else "advice",
    )
