"""cluster/slurm.sbatch before its search: the head's address, and nodes that do not come.

Slurm, Ray and the search are stand-ins here; in test_slurm.py the latter two are real.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.manifests.test_slurm import SCRIPT

STAND_INS = {
    "scontrol": """
if [[ $2 == hostnames ]]; then printf '%s\\n' $SLURM_JOB_NODELIST; fi
if [[ $2 == node ]]; then echo "   NodeAddr=$NODE_ADDR NodeHostName=$3 Version=23.11"; fi""",
    "getent": """
for pair in $HOSTS; do
    if [[ $pair == "$2="* ]]; then echo "${pair#*=}  STREAM $2"; found=1; fi
done
if [[ $2 =~ ^[0-9.]+$ ]]; then echo "$2  STREAM $2"; found=1; fi
[[ ${found:-} ]] || exit 2""",
    "hostname": 'echo "$CARDS"',
    "srun": """
call="srun $*"
echo "${call//$'\\n'/ }" >> "$CALLS"
if [[ "$*" == *"$ENDS"* ]]; then exit 3; fi
exec sleep 60""",
    # Asked whether the head is well: it is once its step has begun.
    "ray": """
for _ in {1..400}; do
    if grep -qs -- --head "$CALLS"; then exit; fi
    sleep 0.05
done
exit 1""",
    # It is asked for a token, and by the address for how many nodes Ray has.
    "python": """
if [[ $2 == *token_hex* ]]; then printf token; exit; fi
[[ $JOINED ]] || exit 1
echo "$JOINED\"""",
    "consilium": 'echo "consilium $*" >> "$CALLS"',
}
LOOPBACK = {"HOSTS": "n1=127.0.1.1 n1=127.0.1.1", "CARDS": "", "NODE_ADDR": "n1"}


@dataclass(frozen=True)
class Outcome:
    """How the batch script ended, and what it called."""

    code: int
    said: str
    calls: list[str]

    @property
    def address(self) -> str:
        """Where the head was told to listen."""
        (head,) = [call for call in self.calls if " --head " in call]
        return head.partition("--node-ip-address=")[2].split()[0]


def start(folder: Path, nodes: str = "n1 n2", joined: str = "2", **given: str) -> Outcome:
    """The batch script to its end, all within a folder.

    Args:
        joined: how many nodes Ray has; empty where it does not answer.
        given: HOSTS (name=address), NODE_ADDR (Slurm's), CARDS (the head's own addresses), and
            ENDS (of the srun that ends at once).
    """
    (folder / "bin").mkdir()
    for name, text in STAND_INS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / "bin" / name).chmod(0o700)
    environment = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder),
        "CALLS": str(folder / "calls"),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": nodes,
        "SLURM_CPUS_PER_TASK": "1",
        "CONSILIUM_JOIN_SECONDS": "0",
        "JOINED": joined,
        **{"HOSTS": "n1=192.0.2.1", "NODE_ADDR": "n1", "CARDS": "", "ENDS": "none"},
        **given,
    }
    done = subprocess.run(
        ["bash", SCRIPT, "study.yaml"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not list(folder.glob(".consilium-token*"))
    calls = folder / "calls"
    lines = calls.read_text().splitlines() if calls.exists() else []
    return Outcome(done.returncode, done.stderr, lines)


ADDRESSES = {
    "its name's": ({}, "192.0.2.1"),
    "its name's next": ({"HOSTS": "n1=127.0.1.1 n1=192.0.2.9"}, "192.0.2.9"),
    "slurm's": (LOOPBACK | {"NODE_ADDR": "192.0.2.5", "CARDS": "192.0.2.6"}, "192.0.2.5"),
    "slurm's name's": (
        LOOPBACK | {"HOSTS": "n1=127.0.1.1 ib1=192.0.2.7", "NODE_ADDR": "ib1"},
        "192.0.2.7",
    ),
    "a card's": (LOOPBACK | {"CARDS": "fd00::2 192.0.2.6 198.51.100.1 "}, "192.0.2.6"),
    "without a name": ({"HOSTS": "", "CARDS": "192.0.2.6"}, "192.0.2.6"),
    "nothing but loopback": (LOOPBACK, "127.0.1.1"),
}


@pytest.mark.parametrize(("given", "address"), ADDRESSES.values(), ids=ADDRESSES)
def test_the_head_listens_where_others_reach_it(
    tmp_path: Path, given: dict[str, str], address: str
) -> None:
    outcome = start(tmp_path, **given)
    assert outcome.code == 0, outcome.said
    assert outcome.address == address
    assert f"consilium search study.yaml --address {address}:11400" in outcome.calls


def test_a_head_without_an_address_starts_nothing(tmp_path: Path) -> None:
    outcome = start(tmp_path, HOSTS="", CARDS="fd00::2")
    assert outcome.code != 0
    assert "n1 has no IPv4 address" in outcome.said
    assert outcome.calls == []


@pytest.mark.parametrize("joined", ["1", ""])
def test_nodes_that_do_not_come_end_the_job_before_its_search(tmp_path: Path, joined: str) -> None:
    outcome = start(tmp_path, "n1 n2 n3", joined)
    assert outcome.code == 1
    said = f"{joined or 0} of 3 nodes have joined Ray at 192.0.2.1:11400: the time for it is over"
    assert said in outcome.said
    assert not [call for call in outcome.calls if call.startswith("consilium")]


def test_workers_whose_step_has_ended_are_not_waited_for(tmp_path: Path) -> None:
    outcome = start(tmp_path, joined="1", ENDS="--exclude=n1", CONSILIUM_JOIN_SECONDS="50")
    assert outcome.code == 1
    assert "1 of 2 nodes have joined" in outcome.said
    assert "a step of srun has ended" in outcome.said


def test_a_node_alone_waits_for_no_other(tmp_path: Path) -> None:
    outcome = start(tmp_path, "n1", joined="")
    assert outcome.code == 0, outcome.said
    head, search = outcome.calls
    assert head.startswith("srun ")
    assert search.startswith("consilium search ")
