"""Figures of an evaluation: arrays in, plotly figures out, readable on light and dark pages.

`probs` is (n_images, n_classes) calibrated, `labels` (n_images,) class indices. With `positive`,
a class index, a figure is of that class against the rest; without, of every class, or of the most
probable one.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from ensemble.operating import clopper_pearson
from search.metrics import ECE_BINS, auprc, auroc
from search.thresholds import ranking

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
History = tuple[str, Sequence[float | None]]  # a trial's name, and a value an epoch

# Okabe & Ito, "Color universal design", 2008, without black and yellow: one fades into each page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot")  # so that more lines than colours stay apart
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x")
GREY = "rgb(118, 118, 118)"  # reads on white and on black; the page puts its ink in its place
GRID = "rgba(128, 128, 128, 0.22)"
LINES = 12  # classes drawn, those with most images
CELLS = 15  # classes of a confusion matrix with numbers in it
NAME = 22  # characters of a class name on an axis
POINTS = 500  # of a curve
SHARE = {"range": [-0.02, 1.02], "dtick": 0.2}


def roc_figure(
    probs: Floats,
    labels: Ints,
    classes: Sequence[str],
    *,
    positive: int | None = None,
    points: Sequence[Mapping[str, Any]] = (),
) -> go.Figure:
    """Sensitivity over false-positive rate; `points` are operating points to mark."""
    figure = _figure("False-positive rate", "Sensitivity", xaxis=SHARE, yaxis=SHARE)
    figure.add_scatter(x=[0, 1], y=[0, 1], name="chance", showlegend=False, hoverinfo="skip", line=_dotted())
    for i, k in enumerate(drawn(labels, len(classes), positive)):
        x, y = roc_curve(probs[:, k], labels == k)
        name = f"{short(classes[k])} {auroc(probs, labels, positive=k):.3f}"
        figure.add_scatter(x=x, y=y, name=name, mode="lines", line=_line(i))
    for i, point in enumerate(points):
        if point["sensitivity"] is not None and point["specificity"] is not None:
            x, y = [1 - point["specificity"]], [point["sensitivity"]]
            figure.add_scatter(x=x, y=y, name=short(point["name"]), mode="markers", marker=_mark(i))
    return figure


def precision_recall_figure(
    probs: Floats, labels: Ints, classes: Sequence[str], *, positive: int | None = None
) -> go.Figure:
    """Precision over sensitivity in steps, with the prevalence that guessing would reach."""
    figure = _figure("Sensitivity (recall)", "Precision", xaxis=SHARE, yaxis=SHARE)
    for i, k in enumerate(drawn(labels, len(classes), positive)):
        x, y = precision_recall_curve(probs[:, k], labels == k)
        name = f"{short(classes[k])} {auprc(probs, labels, positive=k):.3f}"
        figure.add_scatter(x=x, y=y, name=name, mode="lines", line=_line(i))
        if positive is not None:
            share = float((labels == k).mean())
            name = f"prevalence {share:.3f}"
            figure.add_scatter(x=[0, 1], y=[share, share], name=name, mode="lines", line=_dotted())
    return figure


def reliability_figure(probs: Floats, labels: Ints, *, positive: int | None = None) -> go.Figure:
    """Share of hits over mean probability in the ECE's bins, with 95% intervals and counts."""
    score, hit = scored(probs, labels, positive)
    bins = np.clip(np.ceil(score * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    counts = np.bincount(bins, minlength=ECE_BINS)
    hits = np.bincount(bins, weights=hit, minlength=ECE_BINS).astype(np.int64)
    full = np.flatnonzero(counts)
    x = np.bincount(bins, weights=score, minlength=ECE_BINS)[full] / counts[full]
    y = hits[full] / counts[full]
    low, high = np.array([clopper_pearson(int(hits[b]), int(counts[b])) for b in full]).T
    bars = {"array": high - y, "arrayminus": y - low, "thickness": 1.2, "width": 3}
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.78, 0.22], vertical_spacing=0.05)
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", hoverinfo="skip", line=_dotted(), row=1, col=1)
    figure.add_scatter(x=x, y=y, error_y=bars, customdata=counts[full], mode="lines+markers",
        line=_line(0), marker={"size": 7}, row=1, col=1, name="",
        hovertemplate="probability %{x:.3f}<br>share %{y:.3f}<br>%{customdata} images")
    middles = (np.arange(ECE_BINS) + 0.5) / ECE_BINS
    figure.add_bar(x=middles, y=counts, marker={"color": COLOURS[0]}, row=2, col=1, name="",
        hovertemplate="%{y} images")
    what = "Share that is right" if positive is None else "Share that is positive"
    figure.update_layout(_layout(None, what, showlegend=False, yaxis=SHARE, xaxis=SHARE, bargap=0.1))
    figure.update_xaxes(SHARE | {"title": {"text": "Probability"}}, row=2, col=1)
    figure.update_yaxes(title_text="Images", nticks=3, row=2, col=1)
    return figure


def confusion_figure(confusion: Ints, classes: Sequence[str]) -> go.Figure:
    """Images by true (rows) and most probable class, coloured by their share of the row."""
    n = len(classes)
    rows = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, rows, out=np.zeros(confusion.shape), where=rows > 0)
    names = [short(name) for name in classes]
    ticks = {"tickvals": list(range(n)), "ticktext": names, "showgrid": False, "constrain": "domain"}
    figure = _figure("Most probable class", "True class", xaxis=ticks | {"tickangle": "auto"},
        yaxis=ticks | {"autorange": "reversed", "ticklabelstandoff": 4})
    figure.add_heatmap(
        z=shares, zmin=0, zmax=1, xgap=2, ygap=2, showscale=False, name="",
        colorscale=[[0, "rgba(0, 114, 178, 0.06)"], [1, "rgba(0, 114, 178, 1)"]],
        customdata=[[[t, p, int(c)] for p, c in zip(names, row, strict=True)]
            for t, row in zip(names, confusion, strict=True)],
        hovertemplate="true %{customdata[0]}<br>called %{customdata[1]}<br>"
        "%{customdata[2]} images, %{z:.1%} of the row",
    )
    if n <= CELLS:
        for (row, column), count in np.ndenumerate(confusion):
            share = shares[row, column]
            figure.add_annotation(x=column, y=row, text=f"{count}<br>{share:.0%}", showarrow=False,
                font={"color": "white" if share > 0.5 else GREY, "size": 16 if n < 4 else 10})
    return figure


def score_figure(
    probs: Floats,
    labels: Ints,
    classes: Sequence[str],
    *,
    positive: int | None = None,
    points: Sequence[Mapping[str, Any]] = (),
) -> go.Figure:
    """How probabilities spread, for each kind of image by itself, with thresholds across."""
    score, hit = scored(probs, labels, positive)
    name = None if positive is None else short(classes[positive])
    kinds = ("wrong", "right") if name is None else ("other" if len(classes) > 2 else short(classes[1 - positive]), name)
    what = "Probability of the most probable class" if name is None else f"Probability of {name}"
    figure = _figure(what, "Share of its images", xaxis=SHARE, yaxis={"tickformat": ".0%", "rangemode": "tozero"})
    edges, top = np.linspace(0, 1, 21), 0.0
    for i, kind in enumerate(kinds):
        inside = score[hit == i]
        if len(inside):
            shares = np.histogram(np.minimum(inside, 1), edges)[0] / len(inside)
            top = max(top, float(shares.max()))
            figure.add_scatter(x=edges, y=np.append(shares, shares[-1]), name=f"{kind} ({len(inside)})",
                mode="lines", fill="tozeroy", line=_line(i) | {"shape": "hv"})
    for i, point in enumerate(points):
        at = point["threshold"]
        figure.add_scatter(x=[at, at], y=[0, top], mode="lines+markers", marker=_mark(i) | {"size": 8},
            name=f"{short(point['name'])} {at:.3f}", line={"color": GREY, "width": 1.5})
    return figure


def training_figure(members: Sequence[History], others: Sequence[History] = ()) -> go.Figure:
    """A value an epoch for every trial: members strong, others faint. None leaves a gap."""
    figure = _figure("Epoch", "Validation log loss", xaxis={"rangemode": "tozero"})
    values = [v for _, history in [*members, *others] for v in history if v is not None]
    own = [v for _, history in members for v in history if v is not None]
    if values:  # one diverging trial does not flatten the rest
        top = max([min(max(values), 3 * float(np.median(values))), *own])
        figure.update_yaxes(range=[0, 1.05 * top])
    x, y, text = [], [], []
    for name, history in others:  # all in one trace: a study may have a thousand
        x += [*range(1, len(history) + 1), None]
        y += [*history, None]
        text += [html.escape(name)] * (len(history) + 1)
    if others:
        figure.add_scatter(x=x, y=y, text=text, name=f"{len(others)} other trials", opacity=0.4,
            mode="lines+markers", line={"color": GREY, "width": 1}, marker={"size": 3})
    for i, (name, history) in enumerate(members):
        figure.add_scatter(x=list(range(1, len(history) + 1)), y=list(history), name=short(name),
            mode="lines+markers", line=_line(i) | {"width": 3}, marker={"size": 6})
    return figure
