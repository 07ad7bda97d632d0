"""A Ray cluster over the machines of a network: a head and workers, with token auth."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serving.environment import serve_environment
from tests.cluster.nodes.machines import PYTHON, Machine, Network

GCS = 6379
OBJECT_STORE = 100_000_000  # bytes of each machine
RAY = Path(PYTHON).with_name("ray")
TOKEN = "a-token-of-the-tests"  # noqa: S105
ENVIRONMENT = serve_environment(haproxy=True) | {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    # A lost machine is noticed within seconds, as on a cluster that is watched closely.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class Rays:
    """The cluster.

    Attributes:
        environment: of all of Ray's processes, and of those that talk to it.
        cpus: of each worker; the head has none unless `head_cpus`.
        head_words: further options of `ray start` on the head.
    """

    network: Network
    logs: Path
    environment: dict[str, str]
    cpus: int = 1
    head_cpus: int = 0
    head_words: Sequence[str] = ()
    workers: dict[str, Machine] = field(default_factory=dict)

    @property
    def head(self) -> Machine:
        return self.network.machines["head"]

    @property
    def address(self) -> str:
        return f"{self.head.ip}:{GCS}"

    def start_head(self, *, ip: str | None = None) -> Machine:
        """Boot the head, or one that takes the place of a head that is off."""
        head = self.network.boot("head", ip=ip)
        dashboard = ["--include-dashboard=true", f"--dashboard-host={head.ip}"]
        self._start(
            head, "--head", f"--port={GCS}", *dashboard, *self.head_words, cpus=self.head_cpus
        )
        wait_until(lambda: _listens(head.ip, GCS), seconds=60)
        return head

    def add_worker(self, name: str) -> Machine:
        """Boot a worker; it joins within seconds."""
        worker = self.network.boot(name)
        self._start(worker, f"--address={self.address}", cpus=self.cpus)
        self.workers[name] = worker
        return worker

    def wait_for_nodes(self, count: int) -> None:
        """Go on once so many machines are alive, the head included."""
        wait_until(lambda: self.alive() == count, seconds=90)

    def python(self, code: str, *, timeout: float = 120) -> str:
        """What a Python program says that talks to Ray from the head."""
        inside = self.environment | {"RAY_ADDRESS": self.address}
        return self.head.ask(PYTHON, "-c", code, environment=inside, timeout=timeout).stdout

    def alive(self) -> int:
        """Machines, or nodes, that are in the cluster."""
        code = (
            "import ray; from ray._raylet import GcsClient;"
            f"c = GcsClient(address='{self.address}');"
            "print(sum(n.state == 0 for n in c.get_all_node_info().values()))"
        )
        found = self.head.ask(PYTHON, "-c", code, environment=self.environment, check=False)
        return int(found.stdout or 0) if found.returncode == 0 else 0

    def _start(self, machine: Machine, *words: str, cpus: int) -> None:
        machine.start(
            *[str(RAY), "start", "--block", *words, f"--node-ip-address={machine.ip}"],
            *[f"--num-cpus={cpus}", f"--object-store-memory={OBJECT_STORE}"],
            f"--temp-dir={self.network.local}/ray",
            environment=self.environment,
            log=self.logs / f"{machine.name}.log",
        )


def start_rays(
    network: Network,
    logs: Path,
    *,
    workers: int = 2,
    cpus: int = 1,
    head_words: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Rays:
    """A head and some workers, all of which have joined."""
    rays = Rays(network, logs, ENVIRONMENT | dict(environment or {}), cpus, head_words=head_words)
    rays.start_head()
    for number in range(workers):
        rays.add_worker(f"w{number + 1}")
    rays.wait_for_nodes(workers + 1)
    return rays


def wait_until(is_so: Callable[[], bool], *, seconds: float = 60) -> float:
    """Seconds until it is so."""
    begin = time.monotonic()
    while not is_so():
        assert time.monotonic() - begin < seconds, f"not within {seconds:g} s"
        time.sleep(0.1)
    return time.monotonic() - begin


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
