"""The leaderboard: which trials have a rank, which are not dominated, and the table of all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.objectives import LOWER_IS_BETTER, minimised, value_of
from search.params import Params
from search.report.canvas import is_number, label, number
from search.space import Scalar, flatten
from search.study.records import TrialRecord

DEFAULTS = flatten(Params())
ELSEWHERE = {"backbone", "image_size"}  # have columns of their own
TITLES = {
    "sensitivity_at_threshold": "Sensitivity at threshold",
    "image_size": "Pixels",
    "origin": "Recipe",
    "violations": "Over the bound by",
}
TEXTS = {"origin", "backbone", "status", "violations", "params"}


@dataclass(frozen=True)
class Column:
    """One column; `less` where less is better."""

    key: str
    title: str
    is_text: bool
    less: bool


@dataclass(frozen=True)
class Cell:
    """One cell as it is printed, and what its column sorts by where that is a number."""

    text: str
    order: float | None = None


def is_sound(record: TrialRecord) -> bool:
    """Whether a trial ended with a value: complete, or pruned after its best epoch."""
    return record.status in ("complete", "pruned") and is_number(record.value)


def ranked(records: Sequence[TrialRecord], objective: str) -> list[TrialRecord]:
    """Sound, feasible trials, the best by the objective first; of equals the earlier."""
    sign = 1 if minimised(objective) else -1
    feasible = [r for r in records if is_sound(r) and not r.violations]
    return sorted(feasible, key=lambda r: (sign * (r.value or 0.0), r.number))


def less_is_better(name: str) -> bool:
    """Of an objective, or of the training time."""
    return minimised(name) or name == "seconds"


def achieved(record: TrialRecord, objective: str) -> float | None:
    """A trial's value of an objective, a cost, a metric of its best epoch, or its seconds."""
    if objective == "seconds":
        return record.seconds
    for known in (record.values, record.costs):
        if objective in known:
            return known[objective]
    value = value_of(objective, best_epoch(record))
    return value if is_number(value) else None


def best_epoch(record: TrialRecord) -> dict[str, float | None]:
    """Metrics of the epoch that a trial is judged by; none if it never came to one."""
    number = record.best_epoch or 0
    return record.epochs[number - 1] if 0 < number <= len(record.epochs) else {}


def pareto_front(records: Sequence[TrialRecord], objectives: Sequence[str]) -> list[TrialRecord]:
    """Trials that no other beats in one objective without losing in another.

    Those without a value in each of the objectives are left out; equals stay together.
    """
    rows = [[achieved(record, name) for name in objectives] for record in records]
    whole = [i for i, row in enumerate(rows) if all(is_number(value) for value in row)]
    signs = np.array([1 if less_is_better(name) else -1 for name in objectives])
    losses = np.array([rows[i] for i in whole], float).reshape(-1, len(objectives)) * signs
    beaten = [((losses <= row).all(axis=1) & (losses < row).any(axis=1)).any() for row in losses]
    return [records[i] for i, lost in zip(whole, beaten, strict=True) if not lost]


def told_params(params: Params) -> dict[str, Scalar]:
    """Params that differ from their defaults, by dotted name."""
    return {name: value for name, value in flatten(params).items() if value != DEFAULTS[name]}


def printed(value: Scalar | None) -> str:
    """A param's value with three digits; yes and no; a dash where it does not apply."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def board_columns(
    records: Sequence[TrialRecord], objectives: Sequence[str], *, positive: bool
) -> list[Column]:
    """Columns that say something of these trials; thresholds only with a positive class."""
    metrics = ["auroc", "nll"]
    if positive:
        metrics.append("sensitivity_at_threshold")
        if "specificity_at_sensitivity" not in objectives:
            metrics.append("specificity_at_threshold")
    costs = [n for n in ("params_m", "latency_ms") if any(n in r.costs for r in records)]
    keys = ["rank", "trial", "origin", "backbone", "image_size", *objectives]
    keys += [name for name in [*metrics, *costs] if name not in objectives]
    keys += ["epochs", "minutes", "status"]
    keys += ["violations"] if any(r.violations for r in records) else []
    return [_column(key) for key in [*keys, "params"]]


def board_rows(
    records: Sequence[TrialRecord], columns: Sequence[Column], objective: str
) -> list[list[Cell]]:
    """A row a trial: by rank, then by value where it is infeasible, then by number."""
    order = ranked(records, objective)
    ranks = {record.number: rank for rank, record in enumerate(order, 1)}
    sign = 1 if minimised(objective) else -1

    def place(record: TrialRecord) -> tuple[float, ...]:
        rank = ranks.get(record.number, len(records) + 1)
        value = sign * (record.value or 0.0) if is_sound(record) else 0.0
        return rank, not is_sound(record), value, record.number

    ordered = sorted(records, key=place)
    return [[_cell(r, column, ranks.get(r.number)) for column in columns] for r in ordered]


def _column(key: str) -> Column:
    return Column(key, TITLES.get(key, label(key)), key in TEXTS, key in LOWER_IS_BETTER)


def _cell(record: TrialRecord, column: Column, rank: int | None) -> Cell:
    texts = {
        "origin": origin(record),
        "backbone": record.params.backbone,
        "status": "done again" if record.again else record.status,
        "violations": ", ".join(f"{k} {v:.3g}" for k, v in record.violations.items()) or "–",
        "params": _params_text(record),
    }
    if column.key in texts:
        return Cell(texts[column.key])
    counts = {
        "rank": rank,
        "trial": record.number,
        "image_size": record.params.image_size,
        "epochs": len(record.epochs),
    }
    if column.key in counts:
        count = counts[column.key]
        return Cell(number(count), count)
    value = record.seconds / 60 if column.key == "minutes" else achieved(record, column.key)
    return Cell(_digits(column.key, value), value if is_number(value) else None)


def _digits(key: str, value: float | None) -> str:
    if key in ("minutes", "params_m", "latency_ms") and is_number(value):
        return f"{value:,.2f}" if key == "params_m" else f"{value:,.1f}"
    return number(value)


def origin(record: TrialRecord) -> str:
    """Where a trial's params come from."""
    if record.promoted_from is not None:
        return f"second rung of trial {record.promoted_from}"
    return record.recipe or "sampled"


def _params_text(record: TrialRecord) -> str:
    told = [
        f"{name} {printed(value)}"
        for name, value in told_params(record.params).items()
        if name not in ELSEWHERE
    ]
    told += [f"micro-batch {record.micro_batch}"] if record.micro_batch else []
    told += [f"{record.workers} workers"] if record.workers > 1 else []
    return " · ".join(told)
