"""What the page of a study is made of: its head, config, records and what it spent."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from search.config import ExperimentConfig
from search.errors import StudyError
from search.location import list_files, read_bytes
from search.objectives import minimised
from search.report.canvas import duration, label, plural
from search.study.identity import stored_config
from search.study.records import StudyFolder, StudyHead, TrialRecord


@dataclass(frozen=True)
class Results:
    """A study as it was read.

    Attributes:
        config: None where it is missing or damaged.
        records: of fold 0, by number.
        folds: trial number to its records of the other folds.
        objectives: the first ranks the trials.
        seconds: wall time over all restarts; None where nothing was written down.
        disk: bytes by kind.
    """

    head: StudyHead
    config: ExperimentConfig | None
    records: list[TrialRecord]
    folds: dict[int, list[TrialRecord]]
    objectives: list[str]
    seconds: float | None
    disk: Mapping[str, int]

    @property
    def everything(self) -> list[TrialRecord]:
        """Records of all folds."""
        return [*self.records, *(r for found in self.folds.values() for r in found)]


def read_results(folder: StudyFolder) -> Results:
    """Read what the page needs of a study folder.

    Raises:
        StudyError: there is no study in it, or a record is damaged.
    """
    head = folder.head()
    paths = [name.split("/") for name in list_files(folder.path / "trials")]
    numbers = {int(p[0]) for p in paths if len(p) == 3 and p[1].startswith("fold_")}
    folds = {number: folder.fold_records(number) for number in sorted(numbers)}
    return Results(
        head=head,
        config=_config(folder),
        records=folder.records(),
        folds={number: found for number, found in folds.items() if found},
        objectives=head.objectives or [head.objective],
        seconds=_seconds(folder),
        disk=folder.disk_use(),
    )


def facts_of(results: Results) -> dict[str, str]:
    """The head of the page: what was searched, how, and what it spent."""
    head, config = results.head, results.config
    classes = [f"{name} (positive)" if name == head.positive else name for name in head.classes]
    ways = [
        f"{label(name)}, {'lower' if minimised(name) else 'higher'} is better"
        for name in results.objectives
    ]
    sizes = ", ".join(f"{kind} {size(amount)}" for kind, amount in results.disk.items())
    return {
        "Classes": ", ".join(classes),
        "Images": ", ".join(f"{part} {count:,}" for part, count in head.n_images.items()),
        "Objectives" if ways[1:] else "Objective": "; ".join(ways),
        "Sampler": "unknown, config.yaml cannot be read" if config is None else config.sampler,
        "Trials": _trials(results),
        "Time": _time(results),
        "Disk": f"{size(sum(results.disk.values()))}: {sizes}",
        "Begun": head.created,
        "Versions": ", ".join(f"{name} {version}" for name, version in head.versions.items()),
    }


def size(amount: int) -> str:
    """Bytes in the unit that reads: 1.2 MB."""
    value = float(amount)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


def _trials(results: Results) -> str:
    ended = Counter("done again" if r.again else r.status for r in results.records)
    told = ", ".join(f"{count:,} {status}" for status, count in ended.most_common())
    budget = "" if results.config is None else f" of a budget of {results.config.budget.trials:,}"
    done = len(results.records) - ended["done again"] - ended["running"]
    return f"{done:,}{budget}" + (f": {told}" if told else "")


def _time(results: Results) -> str:
    budget = None if results.config is None else results.config.budget
    wall = (
        "wall time not recorded"
        if results.seconds is None
        else (f"{duration(results.seconds)} of wall time")
    )
    if budget is not None and budget.minutes is not None:
        wall += f" of {duration(60 * budget.minutes)}"
    hours = sum(r.gpu_hours for r in results.everything)
    gpu = f"{hours:,.2f} GPU-hours"
    if budget is not None and budget.gpu_hours is not None:
        gpu += f" of {budget.gpu_hours:,g}"
    trial_hours = sum(r.seconds for r in results.everything) / 3600
    count = plural(sum(map(len, results.folds.values())), "finalist's fold")
    folds = f", {count} included" if results.folds else ""
    return f"{wall}, {trial_hours:,.2f} trial-hours{folds}, {gpu}"


def _config(folder: StudyFolder) -> ExperimentConfig | None:
    try:
        return stored_config(folder)
    except StudyError:
        return None


def _seconds(folder: StudyFolder) -> float | None:
    try:
        return float(json.loads(read_bytes(folder.path / "clock.json"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
