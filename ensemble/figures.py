"""Figures of an evaluation: arrays in, plotly figures out, readable on light and dark pages.

`probs` is (n_images, n_classes) calibrated, `labels` (n_images,) class indices, `points` operating
points as in `Evaluation`. With `positive`, a class index, a figure is of that class against the
rest; without, of every class, or of the most probable one.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from ensemble.operating import clopper_pearson
from search.report.canvas import COLOURS, DOTTED, GREY, blank, short
from search.training.metrics import ECE_BINS, auprc, auroc
from search.training.thresholds import ranking

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Points = Sequence[Mapping[str, Any]]
History = tuple[str, Sequence[float | None]]  # a trial's name, and a value an epoch

DASHES = ("solid", "dash", "dot")  # so that more lines than colours stay apart
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x")
SHARES = {"range": [-0.02, 1.02], "dtick": 0.2}
LINES = 12  # classes drawn, those with most images
CELLS = 15  # classes of a confusion matrix with numbers in it
WHITE = 0.85  # share of a row from which white reads better on its cell than dark ink
POINTS = 500  # of a curve


def roc_figure(
    probs: Floats,
    labels: Ints,
    classes: Sequence[str],
    *,
    positive: int | None = None,
    points: Points = (),
) -> go.Figure:
    """Sensitivity over false-positive rate, the operating points marked."""
    figure = blank("False-positive rate", "Sensitivity", xaxis=SHARES, yaxis=SHARES)
    _trace(figure, [0, 1], [0, 1], "chance", line=DOTTED, showlegend=False, hoverinfo="skip")
    for i, k in enumerate(drawn(labels, len(classes), positive)):
        name = f"{short(classes[k])} {auroc(probs, labels, positive=k):.3f}"
        _trace(figure, *roc_curve(probs[:, k], labels == k), name, line=_line(i))
    for i, point in enumerate(points):
        if point["sensitivity"] is not None and point["specificity"] is not None:
            at = [1 - point["specificity"]], [point["sensitivity"]]
            _trace(figure, *at, short(point["name"]), marker=_mark(i))
    return figure


def precision_recall_figure(
    probs: Floats, labels: Ints, classes: Sequence[str], *, positive: int | None = None
) -> go.Figure:
    """Precision over sensitivity, and the prevalence, which guessing would reach."""
    figure = blank("Sensitivity (recall)", "Precision", xaxis=SHARES, yaxis=SHARES)
    for i, k in enumerate(drawn(labels, len(classes), positive)):
        name, share = short(classes[k]), float((labels == k).mean())
        label = f"{name} {auprc(probs, labels, positive=k):.3f}"
        _trace(figure, *precision_recall_curve(probs[:, k], labels == k), label, line=_line(i))
        faint = DOTTED | ({} if positive is not None else {"color": _line(i)["color"]})
        shown = {"showlegend": positive is not None, "hoverinfo": "name"}
        _trace(figure, [0, 1], [share] * 2, f"prevalence {share:.3f}", line=faint, **shown)
    return figure


def reliability_figure(probs: Floats, labels: Ints, *, positive: int | None = None) -> go.Figure:
    """Share of hits over mean probability in the ECE's bins, with 95% intervals and counts."""
    score, hit = scored(probs, labels, positive)
    bins = np.clip(np.ceil(score * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    counts = np.bincount(bins, minlength=ECE_BINS)
    full = np.flatnonzero(counts)
    n, hits = counts[full], np.bincount(bins, weights=hit, minlength=ECE_BINS)[full].astype(int)
    x, y = np.bincount(bins, weights=score, minlength=ECE_BINS)[full] / n, hits / n
    low, high = np.array([clopper_pearson(*pair) for pair in zip(hits, n, strict=True)]).T
    bars = {"array": high - y, "arrayminus": y - low, "thickness": 1.2, "width": 3}
    what = "Share that is right" if positive is None else "Share that is positive"
    panes = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.8, 0.2], vertical_spacing=0.06)
    figure = blank("", what, panes=panes, xaxis=SHARES, yaxis=SHARES, showlegend=False)
    _trace(figure, [0, 1], [0, 1], "ideal", line=DOTTED, hoverinfo="skip", row=1, col=1)
    told = "probability %{x:.3f}<br>share %{y:.3f}<br>%{customdata} images<extra></extra>"
    more = {"error_y": bars, "customdata": n, "hovertemplate": told, "row": 1, "col": 1}
    _trace(figure, x, y, "bin", line=_line(0), marker={"size": 7}, **more)
    middles = (np.arange(ECE_BINS) + 0.5) / ECE_BINS
    figure.add_bar(x=middles, y=counts, marker={"color": COLOURS[0]}, hoverinfo="y", row=2, col=1)
    figure.update_xaxes(SHARES | {"title": {"text": "Probability"}}, row=2, col=1)
    figure.update_yaxes(title_text="Images", nticks=3, row=2, col=1)
    return figure


def confusion_figure(confusion: Ints, classes: Sequence[str]) -> go.Figure:
    """Images by true (rows) and most probable class, coloured by their share of the row."""
    n, rows = len(classes), confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, rows, out=np.zeros(confusion.shape), where=rows > 0)
    names = [short(name) for name in classes]
    ticks = {"tickvals": list(range(n)), "ticktext": names, "showgrid": False}
    x, y = {"tickangle": 0 if n < 4 else -45}, {"autorange": "reversed"}
    figure = blank("Most probable class", "True class", xaxis=ticks | x, yaxis=ticks | y)
    figure.add_heatmap(
        z=shares,
        **{"zmin": 0, "zmax": 1, "xgap": 2, "ygap": 2},
        showscale=False,
        colorscale=[[0, "rgba(0, 114, 178, 0.06)"], [1, COLOURS[0]]],
        customdata=[[[t, p] for p in names] for t in names],
        text=confusion,
        hovertemplate="true %{customdata[0]}<br>called %{customdata[1]}<br>%{text} images, "
        "%{z:.1%} of the row<extra></extra>",
    )
    for (row, column), count in np.ndenumerate(confusion if n <= CELLS else np.empty((0, 0))):
        share = shares[row, column]
        font = {"color": "white" if share > WHITE else GREY, "size": 16 if n < 4 else 11}
        text = f"{count}<br>{share:.0%}"
        figure.add_annotation(x=column, y=row, text=text, font=font, showarrow=False)
    return figure


def score_figure(
    probs: Floats,
    labels: Ints,
    classes: Sequence[str],
    *,
    positive: int | None = None,
    points: Points = (),
) -> go.Figure:
    """How probabilities spread, for each kind of image by itself, and the thresholds."""
    score, hit = scored(probs, labels, positive)
    kinds, what = ("wrong", "right"), "Probability of the most probable class"
    if positive is not None:
        kinds = (short(rest(classes, positive)), short(classes[positive]))
        what = f"Probability of {kinds[1]}"
    shares = {"tickformat": ".0%", "rangemode": "tozero"}
    figure = blank(what, "Share of these images", xaxis=SHARES, yaxis=shares)
    edges, top = np.linspace(0, 1, 21), 0.0
    for i, kind in enumerate(kinds):
        inside = np.minimum(score[hit == i], 1)
        y = np.histogram(inside, edges)[0] / max(len(inside), 1)
        top, name = max(top, float(y.max())), f"{kind} ({len(inside):,})"
        stairs = {"line": _line(i), "line_shape": "hv", "fill": "tozeroy"}
        _trace(figure, edges, np.append(y, y[-1]), name, **stairs)
    for i, point in enumerate(points):
        at, look = point["threshold"], {"line": DOTTED | {"dash": "solid"}, "marker": _mark(i)}
        _trace(figure, [at, at], [0, top], f"{short(point['name'])} {at:.3f}", **look)
    return figure


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
        _trace(figure, x, y, f"other trials ({len(others):,})", text=text, **faint)
    for i, (name, history) in enumerate(members):
        epochs, strong = list(range(1, len(history) + 1)), _line(i) | {"width": 3}
        _trace(figure, epochs, list(history), short(name, 32), line=strong, marker={"size": 6})
    return figure


def roc_curve(score: Floats, is_positive: Bools) -> tuple[Floats, Floats]:
    """False-positive rate and sensitivity from (0, 0) to (1, 1), thinned; both kinds are there."""
    _, tp, fp = ranking(score, is_positive)
    return thin(np.append(0, fp / fp[-1]), np.append(0, tp / tp[-1]))


def precision_recall_curve(score: Floats, is_positive: Bools) -> tuple[Floats, Floats]:
    """Sensitivity and precision as stairs, thinned; the area below is the average precision."""
    _, tp, fp = ranking(score, is_positive)
    gains = np.flatnonzero(np.diff(tp, prepend=0))
    recall, precision = np.append(0, tp[gains] / tp[-1]), tp[gains] / (tp + fp)[gains]
    return thin(np.repeat(recall, 2)[1:-1], np.repeat(precision, 2))


def thin(x: Floats, y: Floats, limit: int = POINTS) -> tuple[Floats, Floats]:
    """At most `limit` points of a line, even along its length: no long step loses its corner."""
    if len(x) <= limit:
        return x, y
    length = np.append(0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y))))
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], limit)))
    return x[kept], y[kept]


def drawn(labels: Ints, n_classes: int, positive: int | None) -> list[int]:
    """Classes with a curve: there are images of them and of the rest."""
    counts = np.bincount(labels, minlength=n_classes)
    wanted = np.argsort(-counts, kind="stable")[:LINES] if positive is None else [positive]
    return sorted(int(k) for k in wanted if 0 < counts[k] < len(labels))


def scored(probs: Floats, labels: Ints, positive: int | None) -> tuple[Floats, Bools]:
    """The probability that is judged and whether it came true, (n_images,), as in the ECE."""
    column = probs.argmax(axis=1) if positive is None else np.full(len(probs), positive)
    return probs[np.arange(len(probs)), column], labels == column


def rest(classes: Sequence[str], positive: int) -> str:
    """The other class of two, or a word for all others."""
    return classes[1 - positive] if len(classes) == 2 else "the rest"


def _trace(figure: go.Figure, x: Any, y: Any, name: str, **style: Any) -> None:
    mode = "+".join(f"{kind}s" for kind in ("line", "marker") if kind in style)
    figure.add_scatter(x=x, y=y, name=name, mode=mode, **style)


def _line(i: int) -> dict[str, Any]:
    turn, colour = divmod(i, len(COLOURS))
    return {"color": COLOURS[colour], "dash": DASHES[turn % len(DASHES)], "width": 2}


def _mark(i: int) -> dict[str, Any]:
    return {"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 11, "color": COLOURS[1]}
