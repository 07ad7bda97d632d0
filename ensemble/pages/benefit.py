"""Figures of what decisions are worth: net benefit, the refer band, answering only when sure."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from ensemble.evaluation.results import DecisionCurve, RiskCoverage
from ensemble.pages.drawing import SHARES, band, line, trace
from ensemble.pages.story import Band
from search.report.canvas import DOTTED, blank

BELOW = 0.4  # of the highest benefit, shown below zero: treating all falls without end


def benefit_figure(curve: DecisionCurve) -> go.Figure:
    """Net benefit over the threshold probability, with intervals."""
    figure = blank("Threshold probability", "Net benefit", xaxis={"rangemode": "tozero"})
    x = np.array(curve.thresholds)
    low, value, high = (
        np.array([np.nan if v is None else v for v in (getattr(e, end) for e in curve.bundle)])
        for end in ("low", "value", "high")
    )
    whole = np.isfinite(low) & np.isfinite(high)
    if whole.any():
        band(figure, x[whole], low[whole], high[whole])
    trace(figure, x, value, "by this bundle", line=line(0))
    trace(figure, x, curve.treat_all, "treat all", line=line(1) | {"dash": "dash"})
    trace(figure, [0, float(x.max(initial=0))], [0, 0], "treat none", line=DOTTED)
    tops = np.concatenate([high[whole], value[np.isfinite(value)], [max(curve.treat_all)], [0.0]])
    top = float(tops.max()) or 1.0
    return figure.update_yaxes(range=[-BELOW * top, 1.08 * top])


def refer_figure(front: Sequence[Band], chosen: tuple[float, float] | None = None) -> go.Figure:
    """Sensitivity and specificity over the share that is referred, along the Pareto front.

    `chosen` is the lower and upper threshold of the band in use.
    """
    ranked = sorted(front, key=lambda b: (b.referred, b.sensitivity))
    shares = {"rangemode": "tozero", "tickformat": ".0%"}
    figure = blank("Share referred to a person", "Rate of the rest", xaxis=shares)
    figure.update_yaxes(tickformat=".0%")
    x = [b.referred for b in ranked]
    told = [f"{b.lower:.3f} to {b.upper:.3f}" for b in ranked]
    for i, name in enumerate(("sensitivity", "specificity")):
        # No line: neighbours along the share may trade one rate for the other.
        look = {"color": line(i)["color"], "size": 7, "symbol": ("circle", "diamond")[i]}
        y = [getattr(b, name) for b in ranked]
        hover = "%{x:.1%} referred<br>%{y:.1%}<br>refers from %{text}<extra>" + name + "</extra>"
        trace(figure, x, y, name, marker=look, text=told, hovertemplate=hover)
    used = [b for b in ranked if chosen is not None and _same(b, chosen)]
    if used:
        at = used[0].referred
        y = [used[0].sensitivity, used[0].specificity]
        ring = {"symbol": "circle-open", "size": 17, "color": line(2)["color"]}
        trace(figure, [at, at], y, "chosen", marker=ring | {"line": {"width": 3}})
    return figure


def coverage_figure(curve: RiskCoverage) -> go.Figure:
    """Share of wrong decisions among the most confident images, over the share kept."""
    figure = blank("Share of images kept", "Share decided wrong")
    figure.update_xaxes(SHARES | {"tickformat": ".0%"})
    figure.update_yaxes(rangemode="tozero", tickformat=".1%")
    figure.update_layout(showlegend=False)
    trace(figure, curve.coverage, curve.risk, "this bundle", line=line(0))
    if curve.risk:
        trace(figure, [0, 1], [curve.risk[-1]] * 2, "all images", line=DOTTED)
    return figure


def _same(option: Band, chosen: tuple[float, float]) -> bool:
    return bool(np.allclose((option.lower, option.upper), chosen, rtol=0, atol=1e-9))
