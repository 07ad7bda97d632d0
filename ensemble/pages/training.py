"""Figures of how members came about: their training, and the picks of the greedy selection."""

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from ensemble.pages.drawing import line, trace
from search.report.canvas import GREY, blank, short

History = tuple[str, Sequence[float | None]]  # a trial's name, and a value an epoch


def training_figure(members: Sequence[History], others: Sequence[History] = ()) -> go.Figure:
    """A value an epoch for every trial: members strong, others faint. None leaves a gap."""
    longest = max((len(history) for _, history in [*members, *others]), default=0)
    whole = {"rangemode": "tozero", "dtick": longest // 8 + 1}  # epochs have no fractions
    figure = blank("Epoch", "Validation log loss", xaxis=whole)
    own = [v for _, history in members for v in history if v is not None]
    values = own + [v for _, history in others for v in history if v is not None]
    if values:  # one trial that diverges does not flatten the rest
        top = max([min(max(values), 3 * float(np.median(values))), *own])
        figure.update_yaxes(range=[0, 1.05 * top])
    if others:  # all in one trace: a study may have a thousand
        x = [e for _, history in others for e in (*range(1, len(history) + 1), None)]
        y = [v for _, history in others for v in (*history, None)]
        text = [html.escape(name) for name, history in others for _ in range(len(history) + 1)]
        faint = {"line": {"color": GREY, "width": 1}, "marker": {"size": 3}, "opacity": 0.6}
        trace(figure, x, y, f"other trials ({len(others):,})", text=text, **faint)
    for i, (name, history) in enumerate(members):
        epochs, strong = list(range(1, len(history) + 1)), line(i) | {"width": 3}
        trace(figure, epochs, list(history), short(name, 32), line=strong, marker={"size": 6})
    return figure


def trajectory_figure(losses: Sequence[float]) -> go.Figure:
    """Log loss of the pool after each greedy pick, (n_picks,); the lowest marked."""
    picks = list(range(1, len(losses) + 1))
    whole = {"rangemode": "tozero", "dtick": len(losses) // 8 + 1}
    figure = blank("Picks", "Log loss of the pool", xaxis=whole, showlegend=False)
    trace(figure, picks, list(losses), "pool", line=line(0), marker={"size": 6})
    best = int(np.argmin(losses))
    star = {"symbol": "star", "size": 14, "color": line(1)["color"]}
    trace(figure, [picks[best]], [losses[best]], "lowest", marker=star)
    return figure
