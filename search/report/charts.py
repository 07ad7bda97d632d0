"""Figures of a study's trials by what they reached: records in, plotly figures out.

`objective` is the first one, which trials are ranked by.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from search.config import FidelityConfig
from search.objectives import minimised, value_of
from search.report.canvas import (
    COLOURS,
    DOTTED,
    blank,
    compact,
    frame,
    is_number,
    label,
    short,
    spans,
)
from search.report.leaderboard import (
    achieved,
    is_sound,
    less_is_better,
    pareto_front,
    ranked,
)
from search.study.records import TrialRecord

Records = Sequence[TrialRecord]
# Name, colour and mark of trials by how they ended.
LOOKS = {
    "complete": (COLOURS[0], "circle"),
    "pruned": (COLOURS[4], "diamond"),
    "infeasible": (COLOURS[3], "triangle-up"),
    "failed": (COLOURS[1], "x"),
    "running": (COLOURS[5], "circle-open"),
}
POINTS = 20_000  # of all learning curves together; the best trials' come first
MARKED = 2_000  # curves with a mark an epoch
DASHED = 40  # curves that can be told apart by dashes


def history_figure(records: Records, objective: str) -> go.Figure:
    """Value by number of every trial that has one, and the best so far as stairs."""
    found = [r for r in records if is_number(r.value)]
    less = minimised(objective)
    span = frame([r.value for r in found if r.value is not None], less=less)
    last = max((r.number for r in found), default=0)
    whole = {"dtick": 1} if last < 10 else {}
    axes = {"xaxis": whole, "yaxis": {"range": span}}
    figure = blank("Trial", label(objective), **axes, hovermode="closest")
    for kind, (colour, symbol) in LOOKS.items():
        group = [r for r in found if _kind(r) == kind]
        if group:
            figure.add_scatter(
                **_by_number(group),
                name=f"{kind} ({len(group):,})",
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 7 if len(found) < 300 else 5},
                hovertemplate=f"trial %{{x}}, {kind}<br>%{{y:.4f}}<br>%{{text}}<extra></extra>",
            )
    best = _running_best(records, objective)
    if best:
        x, y = [r.number for r in best], [compact(r.value) for r in best]
        figure.add_scatter(
            **{"x": [*x, last], "y": [*y, y[-1]], "name": "best so far", "mode": "lines"},
            line={"color": COLOURS[2], "width": 2.5, "shape": "hv"},
            hoverinfo="skip",
        )
    return figure


def importance_figure(shares: Mapping[str, float]) -> go.Figure:
    """A bar a param, the greatest on top."""
    names = list(shares)[::-1]
    figure = blank("Share of importance", "", xaxis={"rangemode": "tozero", "tickformat": ".0%"})
    return figure.add_bar(
        x=[shares[name] for name in names],
        y=[short(name) for name in names],
        orientation="h",
        marker={"color": COLOURS[0]},
        text=[f"{shares[name]:.0%}" for name in names],
        textposition="auto",
        hoverinfo="skip",
    )


def curves_figure(records: Records, objective: str, rungs: Sequence[int]) -> tuple[go.Figure, int]:
    """Objective by epoch, one line a trial, with the rungs; and how many trials are drawn."""
    drawn = _within(records, objective)
    curves = {r.number: [_finite(value_of(objective, e)) for e in r.epochs] for r in drawn}
    values = [value for curve in curves.values() for value in curve if value is not None]
    longest = max((len(curve) for curve in curves.values()), default=0)
    figure = blank(
        "Epoch",
        label(objective),
        xaxis={"dtick": longest // 8 + 1, "range": [0.6, longest + 0.4]},
        yaxis={"range": frame(values, less=minimised(objective))},
        hovermode="closest",
    )
    for rung in rungs:
        figure.add_vline(x=rung, line=DOTTED)
    best = ranked(drawn, objective)[:1]
    for kind, (colour, _) in LOOKS.items():
        group = [r for r in drawn if _kind(r) == kind and r not in best]
        whole = kind in ("complete", "infeasible", "running")
        dash = "solid" if whole or len(group) > DASHED else "dash"
        line = {"width": 1, "dash": dash, "color": colour}
        if group:
            name, opacity = f"{kind} ({len(group):,})", 0.8 if whole else 0.5
            _curves(figure, group, curves, name, line=line, opacity=opacity)
    for record in best:
        strong = {"color": COLOURS[2], "width": 3}
        _curves(figure, best, curves, f"best: trial {record.number}", line=strong)
    return figure, len(drawn)


def rungs_of(fidelity: FidelityConfig) -> list[int]:
    """Epochs after which ASHA stops trials: grace times powers of the reduction."""
    found, rung = [], fidelity.grace
    while rung < fidelity.max_epochs:
        found.append(rung)
        rung *= fidelity.reduction
    return found


def front_figure(records: Records, objectives: Sequence[str], x: str, y: str) -> go.Figure:
    """Two of the objectives against each other, the trials that nothing beats marked.

    Args:
        records: sound and feasible.
        objectives: all that the front is of; where they are two, stairs join it.
        x: one of them.
        y: another one.
    """
    whole = [r for r in records if all(is_number(achieved(r, name)) for name in objectives)]
    front = sorted(pareto_front(whole, objectives), key=lambda r: achieved(r, x) or 0.0)
    members = {record.number for record in front}
    others = [r for r in whole if r.number not in members]
    across, up = ([achieved(r, name) or 0.0 for r in whole] for name in (x, y))
    figure = blank(
        label(x),
        label(y),
        xaxis={"type": "log" if spans(across) else "linear"},
        yaxis={"range": frame(up, less=less_is_better(y))},
        hovermode="closest",
    )
    pale = {"name": f"other trials ({len(others):,})", "marker": {"color": COLOURS[5], "size": 6}}
    _dots(figure, others, objectives, x, y, **pale)
    strong = {"color": COLOURS[1], "size": 10, "symbol": "diamond"}
    line = {"color": COLOURS[1], "shape": "hv" if less_is_better(x) else "vh", "width": 1.5}
    joined = {"mode": "lines+markers", "line": line} if len(objectives) == 2 else {}
    _dots(figure, front, objectives, x, y, name=f"front ({len(front):,})", marker=strong, **joined)
    return figure


def _kind(record: TrialRecord) -> str:
    return "infeasible" if record.violations and is_sound(record) else record.status


def _running_best(records: Records, objective: str) -> list[TrialRecord]:
    places = {r.number: (place, r) for place, r in enumerate(ranked(records, objective))}
    found: list[TrialRecord] = []
    best = len(places)
    for _, (place, record) in sorted(places.items(), key=lambda item: item[0]):
        if place < best:
            best = place
            found.append(record)
    return found


def _by_number(group: Records) -> dict[str, Any]:
    return {
        "x": [r.number for r in group],
        "y": [compact(r.value) for r in group],
        "text": [short(f"{r.params.backbone}, {r.recipe or 'sampled'}", 60) for r in group],
    }


def _within(records: Records, objective: str) -> list[TrialRecord]:
    """Trials with epochs, the best first, as many as the page draws with ease."""
    order = ranked(records, objective)
    ahead = {record.number for record in order}
    found = [*order, *(r for r in records if r.number not in ahead)]
    kept: list[TrialRecord] = []
    points = 0
    for record in found:
        points += len(record.epochs) + 1
        if record.epochs and points <= POINTS:
            kept.append(record)
    return kept


def _curves(
    figure: go.Figure,
    group: Records,
    curves: Mapping[int, Sequence[float | None]],
    name: str,
    **style: Any,
) -> None:
    """All curves of a group as one trace with gaps: a study may have a thousand."""
    figure.add_scatter(
        x=[e for r in group for e in (*range(1, len(curves[r.number]) + 1), None)],
        y=[value for r in group for value in (*curves[r.number], None)],
        customdata=[r.number for r in group for _ in range(len(curves[r.number]) + 1)],
        name=name,
        mode="lines+markers" if len(curves) <= MARKED else "lines",
        marker={"size": 4},
        hovertemplate="trial %{customdata}, epoch %{x}<br>%{y:.4f}<extra></extra>",
        **style,
    )


def _dots(
    figure: go.Figure, group: Records, objectives: Sequence[str], x: str, y: str, **style: Any
) -> None:
    lines = [[f"{label(n)} {achieved(r, n):.4g}" for n in objectives] for r in group]
    texts = [
        "<br>".join([f"trial {r.number}, {short(r.params.backbone, 40)}", *told])
        for r, told in zip(group, lines, strict=True)
    ]
    figure.add_scatter(
        x=[compact(achieved(r, x)) for r in group],
        y=[compact(achieved(r, y)) for r in group],
        text=texts,
        hovertemplate="%{text}<extra></extra>",
        **{"mode": "markers", **style},
    )


def _finite(value: float) -> float | None:
    return compact(value) if math.isfinite(value) else None
