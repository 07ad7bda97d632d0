"""What the figures of a report share: lines, marks, bands, and how many points a line needs."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from search.report.canvas import COLOURS

Floats = NDArray[np.float64]

DASHES = ("solid", "dash", "dot")  # so that more lines than colours stay apart
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x")
SHARES = {"range": [-0.02, 1.02], "dtick": 0.2}
BAND = "rgba(0, 114, 178, 0.18)"  # the first colour, faint
POINTS = 500  # of a curve


def trace(figure: go.Figure, x: Any, y: Any, name: str, **style: Any) -> None:
    """Add a line where a line's look is given, marks where a mark's is."""
    mode = "+".join(f"{kind}s" for kind in ("line", "marker") if kind in style) or "lines"
    figure.add_scatter(x=x, y=y, name=name, mode=mode, **style)


def band(figure: go.Figure, x: Floats, low: Floats, high: Floats) -> None:
    """Shade between two lines, (n,) each."""
    outline = {"showlegend": False, "hoverinfo": "skip", "line": {"width": 0}}
    trace(figure, x, low, "low", **outline)
    trace(figure, x, high, "high", fill="tonexty", fillcolor=BAND, **outline)


def line(i: int) -> dict[str, Any]:
    """The look of the i-th line."""
    turn, colour = divmod(i, len(COLOURS))
    return {"color": COLOURS[colour], "dash": DASHES[turn % len(DASHES)], "width": 2}


def mark(i: int, colour: int = 1) -> dict[str, Any]:
    """The look of the i-th mark."""
    return {"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 11, "color": COLOURS[colour]}


def thin(x: Floats, y: Floats, limit: int = POINTS) -> tuple[Floats, Floats]:
    """At most `limit` points of a line, even along its length: no long step loses its corner."""
    if len(x) <= limit:
        return x, y
    length = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], limit)))
    return x[kept], y[kept]
