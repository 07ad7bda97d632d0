"""Reads one machine: nothing is judged here."""

import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "timm", "onnxruntime", "optuna")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
# In a process of its own: a broken driver may end it, and Ray hides GPUs from a task without one.
TORCH = "import torch; print(torch.version.cuda, torch.cuda.is_available())"
PATIENCE = 60.0  # seconds for a program that asks a GPU; importing torch takes a while


@dataclass(frozen=True)
class Gpus:
    """What a machine says of its GPUs.

    Attributes:
        drivers: a driver version a card, as nvidia-smi lists them; None where there is none.
        torch_cuda: the CUDA that torch was built with; None for a torch without.
        usable: what torch.cuda.is_available says.
    """

    drivers: tuple[str, ...] | None
    torch_cuda: str | None = None
    usable: bool = False


@dataclass(frozen=True)
class Measured:
    """One machine; bytes throughout.

    Attributes:
        versions: of ray, python and the packages; None for what is not installed.
        free: on the disk of each folder, by what the folder is for, with its path.
        shared_memory: size of /dev/shm; None where there is none.
        open_files: the soft and the hard limit of a process.
        memory: of the machine, or of its container.
    """

    versions: Mapping[str, str | None]
    gpus: Gpus
    free: Mapping[str, tuple[str, int]]
    shared_memory: int | None
    open_files: tuple[int, int]
    memory: int


def measure(folders: Mapping[str, Path]) -> Measured:
    """Read this machine.

    Args:
        folders: whose disks count, by what they are for; they need not be there yet.
    """
    return Measured(
        versions=read_versions(),
        gpus=read_gpus(),
        free={name: (str(path), free_bytes(path)) for name, path in folders.items()},
        shared_memory=read_shared_memory(),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        memory=read_memory(),
    )


def read_versions() -> dict[str, str | None]:
    """Of Python, Ray and the packages that trials and bundles depend on."""
    return {"python": platform.python_version()} | {
        name: _version(name) for name in ("ray", *PACKAGES)
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_gpus() -> Gpus:
    """Asks torch only where a driver answers."""
    listed = _output(NVIDIA_SMI)
    if listed is None:
        return Gpus(None)
    drivers = tuple(line.strip() for line in listed.splitlines() if line.strip())
    cuda, _, usable = (_output((sys.executable, "-c", TORCH)) or "None False").partition(" ")
    return Gpus(drivers, None if cuda == "None" else cuda, usable.strip() == "True")


def _output(command: tuple[str, ...]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(existing(folder)).free


def read_shared_memory() -> int | None:
    return shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else None


def read_memory() -> int:
    """Bytes; a container's limit where there is one."""
    from ray._common.utils import get_system_memory

    return int(get_system_memory())
