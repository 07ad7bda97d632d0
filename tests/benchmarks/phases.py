"""The consilium command with a stopwatch: python -m tests.benchmarks.phases NOTES search CONFIG."""

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import cli

PHASES = {  # where the command looks the function up: what it does
    ("search.study.run", "take_in"): "audit and splits",
    ("search.study.run", "_check_trials"): "check of the backbones",
    ("search.study.run", "_warm_caches"): "decode",
    ("search.study.run", "tune_trials"): "trials",
    ("search.study.run", "train_finalists"): "finalists",
    ("search.report.page", "write_study_report"): "report",
}


class Stopwatch:
    """Notes when phases began and ended, in seconds since the epoch."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, float, float]] = []

    def note(self, phase: str, begin: float) -> None:
        self.notes.append((phase, begin, time.time()))

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, noted as a phase."""

        def timed(*args: Any, **options: Any) -> Any:
            begin = time.time()
            try:
                return function(*args, **options)
            finally:
                self.note(phase, begin)

        return timed

    def connecting(self, connected: Callable[..., Any]) -> Callable[..., Any]:
        """Ray's context, its start noted as a phase."""

        @contextmanager
        def connecting(address: str | None = None) -> Iterator[None]:
            begin = time.time()
            with connected(address):
                self.note("Ray start", begin)
                yield

        return connecting


def main(file: Path, words: list[str]) -> None:
    """Run the command as it is, and write the notes however it ends."""
    watch = Stopwatch()
    for (module, name), phase in PHASES.items():
        place = importlib.import_module(module)
        setattr(place, name, watch.timed(phase, getattr(place, name)))
    cli.connected = watch.connecting(cli.connected)  # type: ignore[attr-defined]
    watch.notes.append(("ready", time.time(), time.time()))
    try:
        cli.main(words)
    finally:
        file.write_text(json.dumps(watch.notes))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
