"""Several machines on this one, each with a network, processes, host name and disk of its own.

A machine is a set of Linux namespaces behind a virtual bridge that no other host can reach; its
local disk and its shared memory are its own, all other folders are this machine's. To cut its power
is to kill the first of its processes.
"""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PYTHON = sys.executable
DISK = "512m"
SHARED_MEMORY = "256m"
TOOLS = ("ip", "unshare", "nsenter", "mount", "setpriv")
DIES_TOO = ("setpriv", "--pdeathsig", "KILL")  # a machine whose test is killed goes with it
BEGIN = """
hostname {name}
mount -t tmpfs -o size={shared} tmpfs /dev/shm
mount -t tmpfs -o size={disk} tmpfs {local}
echo up
exec sleep infinity
"""


@dataclass
class Machine:
    """One of them.

    Attributes:
        ip: its address on the bridge.
        local: folder that is its local disk; the same name on all machines, other files.
    """

    name: str
    ip: str
    local: Path
    first: "subprocess.Popen[str]"
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(
        self,
        *words: str | Path,
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start a program there, in the project's folder; it ends with the machine."""
        with Path(log or os.devnull).open("ab") as out:
            process = subprocess.Popen(
                self._inside(words),
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )
        self.started.append(process)
        return process

    def ask(
        self,
        *words: str | Path,
        environment: Mapping[str, str] | None = None,
        timeout: float = 120,
        check: bool = True,
    ) -> "subprocess.CompletedProcess[str]":
        """What a program there says; it must exit with 0 if `check`."""
        found = subprocess.run(
            self._inside(words),
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )
        assert not check or found.returncode == 0, found.stdout[-2000:] + found.stderr[-3000:]
        return found

    def files(self, pattern: str) -> list[str]:
        """Files of its local disk, as find's -path takes them."""
        found = self.ask("find", self.local, "-path", f"{self.local}/{pattern}")
        return sorted(found.stdout.split())

    def off(self) -> None:
        """Cut its power: every process is gone at once, its disk, too."""
        self.first.send_signal(signal.SIGKILL)
        self.first.wait()
        for process in self.started:
            process.wait(30)
        if self.first.stdout is not None:
            self.first.stdout.close()

    def _inside(self, words: Sequence[str | Path]) -> list[str]:
        # The child that unshare forked is the first process of the machine.
        children = Path(f"/proc/{self.first.pid}/task/{self.first.pid}/children").read_text()
        pid = children.split()[0]
        ways = ["-t", pid, "-m", "-n", "-p", "-u", f"-w{ROOT}"]
        return ["nsenter", *ways, "--", *DIES_TOO, *map(str, words)]


@dataclass
class Network:
    """The bridge, and what hangs on it.

    Attributes:
        ip: this machine's own address on the bridge.
    """

    bridge: str
    prefix: str
    local: Path
    machines: dict[str, Machine] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(2))

    @property
    def ip(self) -> str:
        return f"{self.prefix}.1"

    def boot(self, name: str, *, ip: str | None = None) -> Machine:
        """A new machine, or one that takes the place, and the address, of one that is off."""
        ip = ip or f"{self.prefix}.{next(self.numbers)}"
        space = f"{self.bridge}-{name}"
        subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
        _ip("netns", "add", space)
        near, far = f"{self.bridge}{name}"[:15], "eth0"
        subprocess.run(["ip", "link", "del", near], check=False, capture_output=True)
        peer = ("peer", "name", far, "address", hardware_address(ip), "netns", space)
        _ip("link", "add", near, "type", "veth", *peer)
        _ip("link", "set", near, "master", self.bridge, "up")
        _ip("-n", space, "addr", "add", f"{ip}/24", "dev", far)
        _ip("-n", space, "link", "set", far, "up")
        _ip("-n", space, "link", "set", "lo", "up")
        script = BEGIN.format(name=name, shared=SHARED_MEMORY, disk=DISK, local=self.local)
        new = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        first = subprocess.Popen(
            [*DIES_TOO, "ip", "netns", "exec", space, *new, "sh", "-ec", script],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert first.stdout is not None
        assert first.stdout.readline() == "up\n", f"{name} does not boot"
        self.machines[name] = Machine(name, ip, self.local, first)
        return self.machines[name]

    def close(self) -> None:
        """Cut all power and take the network away."""
        for name, machine in self.machines.items():
            if machine.first.poll() is None:
                machine.off()
            subprocess.run(
                ["ip", "netns", "del", f"{self.bridge}-{name}"], check=False, capture_output=True
            )
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)


@contextmanager
def network() -> Iterator[Network]:
    """A network without machines yet; the test is skipped where none can be made."""
    if os.geteuid() != 0 or not all(map(shutil.which, TOOLS)):
        pytest.skip("network namespaces need root and iproute2")
    number = os.getpid() % 200 + 20
    bridge, prefix = f"cn{os.getpid() % 100_000}", f"10.213.{number}"
    local = Path(tempfile.mkdtemp(prefix="cn"))  # short: Unix sockets bear 107 characters
    made = Network(bridge, prefix, local)
    try:
        try:
            _ip("link", "add", bridge, "address", hardware_address(made.ip), "type", "bridge")
            _ip("addr", "add", f"{prefix}.1/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not allowed here: {error.stderr!r}")
        yield made
    finally:
        made.close()
        shutil.rmtree(local, ignore_errors=True)


def hardware_address(ip: str) -> str:
    """The MAC address that goes with an IP address, for ever.

    A bridge would take that of one of its machines, another one whenever some go and come, and who
    knows the old one would reach nobody for up to a minute; so would who knew a machine before
    another one took its address.
    """
    return ":".join(["02", "00", *(f"{int(part):02x}" for part in ip.split("."))])


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
