"""The figure of images that were made worse on purpose."""

from collections.abc import Sequence

import plotly.graph_objects as go

from ensemble.evaluation.results import Corrupted
from ensemble.pages.drawing import SYMBOLS, line, trace
from ensemble.pages.tables import label
from search.report.canvas import blank, short

SPREAD = 0.06  # severities between the marks of two kinds, so that their bars stay apart


def corruption_figure(rows: Sequence[Corrupted], metric: str) -> go.Figure:
    """A metric over severity, 0 to 5, a line for each kind, with intervals."""
    figure = blank("Severity (0: as it is)", label(metric), xaxis={"dtick": 1})
    kinds = kinds_of(rows)
    for i, kind in enumerate(kinds):
        # What is as it is has no kind of its own: every line starts there.
        own = sorted(
            (r for r in rows if r.kind == kind or r.severity == 0), key=lambda r: r.severity
        )
        shift = SPREAD * (i - (len(kinds) - 1) / 2)
        found = [(r.severity, r.metrics[metric]) for r in own if metric in r.metrics]
        kept = {s: e for s, e in found if e.value is not None}
        x, estimates = list(kept), list(kept.values())
        y = [float(e.value or 0.0) for e in estimates]
        up = [0 if e.high is None else e.high - v for e, v in zip(estimates, y, strict=True)]
        down = [0 if e.low is None else v - e.low for e, v in zip(estimates, y, strict=True)]
        bars = {"array": up, "arrayminus": down, "thickness": 1, "width": 0}
        look = {"line": line(i), "marker": {"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 7}}
        trace(figure, [s + shift if s else 0 for s in x], y, short(kind), error_y=bars, **look)
    return figure


def kinds_of(rows: Sequence[Corrupted]) -> list[str]:
    """Kinds of corruption, in the order they come; what is as it is has none."""
    return list(dict.fromkeys(row.kind for row in rows if row.severity))
