"""Parallel coordinates: the sampled params of all trials against what they reached."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from search.objectives import minimised
from search.report.canvas import COLOURS, GREY, blank, compact, frame, label, short, spans
from search.report.leaderboard import printed
from search.space import Choice, Conditional, Range, Scalar, Space, flatten
from search.study.records import TrialRecord

FEW = 6  # values up to which numbers stand as evenly spaced names
Columns = Mapping[str, Sequence[Scalar | None]]


def columns_of(records: Sequence[TrialRecord], space: Space | None) -> Columns:
    """Sampled params that differ between records, a value each; None where one does not apply.

    Without a space, all params that differ.
    """
    flats = [flatten(record.params) for record in records]
    rows = flats if space is None else [_applying(space, flat) for flat in flats]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    return {n: c for n, c in columns.items() if len({v for v in c if v is not None}) > 1}


def coordinates_figure(
    columns: Columns, values: Sequence[float], objective: str, space: Space | None = None
) -> go.Figure:
    """An axis a param and a line a trial, coloured by its value; the best are drawn last."""
    less = minimised(objective)
    low, high = frame(values, less=less) or (0.0, 1.0)
    axes = [
        _axis(name, column, log=_is_log(name, column, space)) for name, column in columns.items()
    ]
    figure = blank("", "")
    figure.update_layout(margin={"l": 120, "r": 30, "t": 70, "b": 20}, xaxis=None, yaxis=None)
    return figure.add_parcoords(
        line={
            "color": [compact(-value if less else value) for value in values],
            "colorscale": [[0, COLOURS[4]], [1, COLOURS[0]]],
            "cmin": -high if less else low,
            "cmax": -low if less else high,
        },
        dimensions=[*axes, _axis(label(objective), values, log=spans(values))],
        labelangle=-14,
        labelfont={"color": GREY, "size": 12},
        tickfont={"color": GREY, "size": 11},
        rangefont={"color": "rgba(0, 0, 0, 0)", "size": 1},
    )


def _applying(space: Space, flat: Mapping[str, Scalar]) -> dict[str, Scalar]:
    seen: dict[str, Scalar] = {}
    sampled: dict[str, Scalar] = {}
    for name, rule in space.root.items():
        if isinstance(rule, Conditional) and not rule.applies(seen):
            continue
        seen[name] = flat[name]
        if isinstance(rule, Choice | Range):
            sampled[name] = flat[name]
    return sampled


def _is_log(name: str, column: Sequence[Scalar | None], space: Space | None) -> bool:
    rule = None if space is None else space.root.get(name)
    known = [float(value) for value in column if isinstance(value, int | float)]
    if isinstance(rule, Range):
        return rule.log and min(known, default=0.0) > 0  # a recipe's may lie outside, and be 0
    return spans(known)


def _axis(name: str, column: Sequence[Scalar | None], *, log: bool) -> dict[str, Any]:
    known = {value for value in column if value is not None}
    numbers = [float(v) for v in known if isinstance(v, int | float) and not isinstance(v, bool)]
    whole = len(numbers) == len(known)
    if whole and len(known) > FEW:
        return {"label": short(name), **_scale(column, numbers, log=log)}
    named = sorted(known, key=lambda v: (float(v) if whole else 0.0, str(v)))
    order: list[Scalar | None] = [None, *named] if None in column else [*named]
    at = {value: place for place, value in enumerate(order)}
    return {
        "label": short(name),
        "values": [at[value] for value in column],
        "tickvals": list(at.values()),
        "ticktext": [printed(value) for value in order],
    }


def _scale(column: Sequence[Scalar | None], known: Sequence[float], *, log: bool) -> dict[str, Any]:
    place = math.log10 if log else float
    low, high = place(min(known)), place(max(known))
    nowhere = low - 0.15 * (high - low)  # where it does not apply
    at = [nowhere if value is None else compact(place(float(value))) for value in column]
    ticks = [low + (high - low) * i / 4 for i in range(5)]
    texts = [printed(float(10**tick if log else tick)) for tick in ticks]
    if None in column:
        ticks, texts = [nowhere, *ticks], ["–", *texts]
    return {"values": at, "tickvals": ticks, "ticktext": texts}
