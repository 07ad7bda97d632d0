"""Commands in processes of their own, timed from their start to their report."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from search.config import ExperimentConfig, load_config
from search.study.records import StudyFolder


class Phase(NamedTuple):
    """When something was done, in seconds since the epoch."""

    name: str
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin


@dataclass(frozen=True)
class Finished:
    """A search that was done by the command.

    Attributes:
        seconds: of wall time, from the command's start until its report was on disk.
        phases: in their order; "imports" is the first.
    """

    config: ExperimentConfig
    seconds: float
    phases: list[Phase]

    @property
    def folder(self) -> StudyFolder:
        return StudyFolder(self.config.study_folder)

    @property
    def ray_seconds(self) -> float:
        """Until Ray was there."""
        return sum(phase.seconds for phase in self.phases if phase.name == "Ray start")


def search_in_process(file: Path) -> Finished:
    """Run `consilium search` on an experiment's YAML, with a Ray of its own.

    Raises:
        subprocess.CalledProcessError: it failed; it has said why on stderr.
    """
    notes = file.with_suffix(".json")
    begin = python("tests.benchmarks.phases", str(notes), "search", str(file))
    phases = [Phase(*note) for note in json.loads(notes.read_text())]
    ready = next(phase for phase in phases if phase.name == "ready")
    phases = [Phase("imports", begin, ready.begin), *(p for p in phases if p.name != "ready")]
    return Finished(load_config(file), max(p.end for p in phases) - begin, phases)


def python(module: str, *words: str) -> float:
    """Run a module; what it prints to stderr is seen. When it was started, since the epoch.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    left_out = ("RAY_ADDRESS", "OMP_NUM_THREADS")  # each contender decides on its own threads
    surroundings = {k: v for k, v in os.environ.items() if k not in left_out}
    begin = time.time()
    words = (sys.executable, "-m", module, *words)
    process = subprocess.Popen(words, env=surroundings, stdout=subprocess.DEVNULL)
    try:
        code = process.wait()
    except BaseException:
        process.terminate()  # it has a Ray to clear away
        process.wait()
        raise
    if code:
        raise subprocess.CalledProcessError(code, words)
    return begin


def leave_when_told() -> None:
    """On SIGTERM, leave by the way that clears everything away."""
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
