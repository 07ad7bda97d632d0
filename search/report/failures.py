"""Trials that failed, by reason: the same reason with other numbers in it is the same."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from search.report.leaderboard import origin, printed, told_params
from search.study.records import TrialRecord

NUMBER = re.compile(r"[-+]?(\d+(\.\d+)?(e[-+]?\d+)?|\bnan\b|\binf\b)", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """One trial: its name with its fold, why it failed, and the params that are no defaults."""

    name: str
    reason: str
    params: str


@dataclass(frozen=True)
class Group:
    """Failures of one reason; `again` where the trials were done again."""

    reason: str
    again: bool
    failures: list[Failure]


def failures_of(records: Sequence[TrialRecord]) -> list[Group]:
    """Groups of failures, the largest first; those that were done again come last."""
    groups: dict[tuple[bool, str], list[TrialRecord]] = {}
    for record in records:
        if record.status == "failed":
            reason = NUMBER.sub("#", record.error or "no reason was written down")
            groups.setdefault((record.again, reason), []).append(record)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1])))
    return [
        Group(_reason(found[0]), again, [_failure(record) for record in found])
        for (again, _), found in ordered
    ]


def _failure(record: TrialRecord) -> Failure:
    fold = f", fold {record.fold}" if record.fold else ""
    told = [f"{name} {printed(value)}" for name, value in told_params(record.params).items()]
    params = ", ".join(
        [f"backbone {record.params.backbone}", *(t for t in told if "backbone" not in t)]
    )
    return Failure(f"trial {record.number}{fold} ({origin(record)})", _reason(record), params)


def _reason(record: TrialRecord) -> str:
    return record.error or "no reason was written down"
