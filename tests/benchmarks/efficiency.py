"""How much of the machine's time a search spends in training and validation steps."""

import os
from collections import defaultdict

from cluster.console import messages, table
from tests.benchmarks.accounts import Stint, gaps_of, idle_of, stints_of
from tests.benchmarks.command import Finished, Phase

CORES = os.cpu_count() or 1
STEPS = "in training and validation steps"


def account(done: Finished) -> dict[str, float]:
    """Core-seconds of a search by what they were spent on; they sum to wall time × cores."""
    threads = done.config.resources.cpu
    trials, finalists = stints_of(done.folder)
    spent: dict[str, float] = defaultdict(float)
    spent[STEPS] = 0.0
    for phase in done.phases:
        if phase.name not in ("trials", "finalists"):
            spent[phase.name] += phase.seconds * CORES
            continue
        stints = [s for s in (*trials, *finalists) if phase.begin <= s.start <= phase.end]
        for what, seconds in _parts(phase, stints, CORES // threads).items():
            name = what if what == STEPS else f"{phase.name}: {what}"
            spent[name] += seconds * threads
    spent["rest"] = done.seconds * CORES - sum(spent.values())
    return dict(spent)


def _parts(phase: Phase, stints: list[Stint], slots: int) -> dict[str, float]:
    steps = sum(s.steps for s in stints)
    idle = idle_of(stints, slots, phase.begin, phase.end)
    return {
        STEPS: steps,
        "first step and files": sum(s.end - s.start for s in stints) - steps,
        "workers start": idle.before,
        "between trials": idle.between,
        "last ones, slots without a trial": idle.after,
    }


def show_efficiency(done: Finished, what: str) -> float:
    """Where the time went, as a table; the compute efficiency, 0 to 1."""
    spent = account(done)
    total = done.seconds * CORES
    rows = [
        {"core-seconds": f"{seconds:.1f}", "share": f"{seconds / total:.1%}", "spent": name}
        for name, seconds in sorted(spent.items(), key=lambda item: -item[1])
    ]
    n = len(done.folder.records())
    table(f"{what}: {n} trials in {done.seconds:.0f} s on {CORES} cores", rows, to=messages)
    return spent[STEPS] / total


def slot_gaps(searches: list[Finished]) -> list[float]:
    """Seconds from a trial's end to the first step of the next in the same worker."""
    return [gap for done in searches for gap in gaps_of(stints_of(done.folder)[0])]
