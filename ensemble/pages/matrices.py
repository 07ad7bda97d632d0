"""Counted decisions as coloured cells."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from search.report.canvas import COLOURS, GREY, blank, short

Ints = NDArray[np.int64]

CELLS = 15  # rows of a matrix with numbers in its cells
WHITE = 0.75  # share of a row from which white reads better on its cell than dark ink


def confusion_figure(confusion: Ints, classes: Sequence[str]) -> go.Figure:
    """Images by true (rows) and most probable class: (n_classes, n_classes)."""
    figure = _matrix(confusion, classes, classes)
    figure.update_xaxes(title_text="Most probable class")
    return figure.update_yaxes(title_text="True class")


def decision_figure(confusion: Ints, rows: Sequence[str], *, refers: bool) -> go.Figure:
    """Images by truth, (2, 3): called negative, referred, called positive.

    The middle column is left out where the operating point refers none.
    """
    calls = ["negative", "referred", "positive"]
    kept = [0, 1, 2] if refers else [0, 2]
    figure = _matrix(confusion[:, kept], rows, [calls[k] for k in kept])
    return figure.update_xaxes(tickangle=0, title_text="Called")


def _matrix(counts: Ints, rows: Sequence[str], columns: Sequence[str]) -> go.Figure:
    whole = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, whole, out=np.zeros(counts.shape), where=whole > 0)
    down, across = [short(name) for name in rows], [short(name) for name in columns]
    few = len(columns) < 4
    x = {"tickvals": list(range(len(across))), "ticktext": across, "tickangle": 0 if few else -45}
    y = {"tickvals": list(range(len(down))), "ticktext": down, "autorange": "reversed"}
    figure = blank("", "", xaxis=x | {"showgrid": False}, yaxis=y | {"showgrid": False})
    figure.add_heatmap(
        z=shares,
        **{"zmin": 0, "zmax": 1, "xgap": 2, "ygap": 2},
        showscale=False,
        colorscale=[[0, "rgba(0, 114, 178, 0.06)"], [1, COLOURS[0]]],
        customdata=[[[t, p] for p in across] for t in down],
        text=counts,
        hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>%{text} images, "
        "%{z:.1%} of the row<extra></extra>",
    )
    for (row, column), count in np.ndenumerate(counts if len(rows) <= CELLS else np.empty((0, 0))):
        share = shares[row, column]
        font = {"color": "white" if share > WHITE else GREY, "size": 16 if few else 11}
        text = f"{count}<br>{share:.0%}"
        figure.add_annotation(x=column, y=row, text=text, font=font, showarrow=False)
    return figure
