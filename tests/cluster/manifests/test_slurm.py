"""cluster/slurm.sbatch: a real search on two Rays of this machine, with stand-ins for Slurm."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from search.config import load_config
from search.study.records import StudyFolder
from tests.cluster.manifests.objects import ROOT
from tests.experiments import write_experiment

SCRIPT = ROOT / "cluster" / "slurm.sbatch"
BLOCK = 200  # ports of one job
PATIENCE = 400.0  # seconds that a test waits for what it needs; two Rays start within
# Two nodes that are one machine: a step is a process here, with a disk of its own.
SRUN = """#!/bin/bash
call="srun $*"
echo "${call//$'\n'/ }" >> "$CALLS"
while [[ $1 == --* ]]; do shift; done
SLURM_TMPDIR=$(mktemp -d "$DISKS/XXX")
export SLURM_TMPDIR
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >> "$CALLS"
if [[ $1 == show ]]; then printf '%s\\n' localhost localhost; fi
"""
# No card but loopback: what it starts is for nobody else on the network.
HOSTNAME = "#!/bin/bash\n"


def test_bash_and_shellcheck_find_nothing() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    subprocess.run(["shellcheck", SCRIPT], check=True)


def test_it_may_be_requeued_and_is_warned_before_its_time_ends() -> None:
    asked = re.findall(r"(?m)^#SBATCH (\S+)$", SCRIPT.read_text())
    assert {"--requeue", "--open-mode=append", "--ntasks-per-node=1"} <= set(asked)
    assert "--signal=B:USR1@180" in asked
    text = SCRIPT.read_text()
    assert text.index("#SBATCH") < text.index("set -euo pipefail")  # Slurm reads no further


def test_it_says_how_it_is_called() -> None:
    done = subprocess.run(["bash", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "usage: sbatch cluster/slurm.sbatch CONFIG" in done.stderr


def free_job() -> int:
    """A job's number whose ports are all free."""
    for job in range(100, 200):
        if all(is_free(10000 + job % 100 * BLOCK + port) for port in range(BLOCK)):
            return job
    pytest.skip("no block of two hundred ports is free")


def is_free(port: int) -> bool:
    with closing(socket.socket()) as listener:
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass
class Allocation:
    """Two nodes, as Slurm gives them to a job."""

    folder: Path
    job: int
    process: "subprocess.Popen[str] | None" = None

    @property
    def environment(self) -> dict[str, str]:
        """What the batch script finds."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))}
        return clean | {
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.folder / "home"),
            "DISKS": str(self.folder / "disks"),
            "CALLS": str(self.folder / "calls"),
            "SLURM_JOB_ID": str(self.job),
            "SLURM_JOB_NODELIST": "localhost,localhost",
            "SLURM_CPUS_PER_TASK": "1",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *words: str | Path) -> "subprocess.Popen[str]":
        """Begin the batch script; its output goes to one file, as Slurm's does."""
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                ["bash", SCRIPT, *words],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                text=True,
            )
        return self.process

    def calls(self) -> list[str]:
        """What Slurm was asked for, in order."""
        return (self.folder / "calls").read_text().splitlines()

    def log(self) -> str:
        """All that was printed."""
        return (self.folder / "log").read_text()

    def left(self) -> list[str]:
        """Processes, files and tokens of the job that are still there."""
        found = [p.name for p in (self.folder / "home").iterdir() if "token" in p.name]
        found += [str(p) for p in (self.folder / "disks").glob("*/*")]
        return found + list(self.processes().values())

    def processes(self) -> dict[int, str]:
        """Those that name the job's disks: their commands, by id."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it has ended
                continue
            if str(self.folder / "disks") in words:
                found[int(path.parent.name)] = words
        return found


@pytest.fixture
def allocation() -> Iterator[Allocation]:
    folder = Path(tempfile.mkdtemp(prefix="s"))  # short: Unix sockets bear 107 characters
    for name in ("bin", "home", "disks"):
        (folder / name).mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("hostname", HOSTNAME)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o700)
    given = Allocation(folder, free_job())
    yield given
    if given.process is not None and given.process.poll() is None:
        given.process.terminate()
        given.process.wait(60)
    for process in given.processes():
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def study_of(config: Path) -> StudyFolder:
    return StudyFolder(load_config(config).study_folder)


@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE)
def test_a_search_on_two_nodes_is_done_and_leaves_nothing(
    allocation: Allocation, tmp_path: Path
) -> None:
    config = write_experiment(tmp_path)
    process = allocation.start(config, "--quiet")
    assert process.wait(PATIENCE) == 0, allocation.log()
    records = study_of(config).records()
    assert {record.status for record in records} <= {"complete", "pruned"}
    assert len(records) >= 3
    show, look, head, worker = allocation.calls()
    assert show == "scontrol show hostnames localhost,localhost"
    assert look == "scontrol show node localhost"
    assert "--nodes=1 --ntasks=1 --nodelist=localhost" in head
    assert "--nodes=1 --ntasks=1 --exclude=localhost" in worker
    assert not re.search(r"\b[0-9a-f]{64}\b", head + worker)  # the token
    assert allocation.left() == []


@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE)
def test_as_its_time_ends_it_is_requeued_and_goes_on_where_it_stopped(
    allocation: Allocation, tmp_path: Path
) -> None:
    fidelity = {"max_epochs": 24, "grace": 8, "reduction": 3, "finalists": 1}
    config = write_experiment(tmp_path, fidelity=fidelity, budget={"trials": 4})
    process = allocation.start(config, "--quiet")
    wait_for_an_end(config, process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(PATIENCE) == 0, allocation.log()
    assert allocation.calls()[-1] == f"scontrol requeue {allocation.job}"
    assert "goes on once Slurm has started this job again" in allocation.log()
    assert allocation.left() == []
    before = done(config)
    assert before
    assert allocation.start(config, "--quiet").wait(PATIENCE) == 0, allocation.log()
    assert before < done(config)
    assert allocation.left() == []


def done(config: Path) -> set[str]:
    """Trials that have ended well, with what they found."""
    ended = ("complete", "pruned")
    records = study_of(config).records()
    return {f"{record.number} {record.value}" for record in records if record.status in ended}


def wait_for_an_end(config: Path, process: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + PATIENCE
    trials = load_config(config).output / "study" / "trials"
    while not (trials.exists() and done(config)):
        assert process.poll() is None, "the search ended before a trial did"
        assert time.monotonic() < end, "no trial ended"
        time.sleep(0.1)
