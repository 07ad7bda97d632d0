"""Curves of probabilities against labels: arrays in, plotly figures out, for light and dark pages.

`probs` is (n_images, n_classes) calibrated, `labels` (n_images,) class indices, `points` what the
operating points do to these images. With `positive`, a class index, a figure is of that class
against the rest; without, of every class, or of the most probable one.
"""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from ensemble.decision.intervals import clopper_pearson
from ensemble.evaluation.results import PointResult
from ensemble.pages.drawing import SHARES, line, mark, thin, trace
from search.report.canvas import COLOURS, DOTTED, blank, short
from search.training.metrics import ECE_BINS, auprc, auroc
from search.training.thresholds import ranking

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Points = Sequence[PointResult]

LINES = 12  # classes drawn, those with most images


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
    trace(figure, [0, 1], [0, 1], "chance", line=DOTTED, showlegend=False, hoverinfo="skip")
    for i, k in enumerate(drawn(labels, len(classes), positive)):
        name = f"{short(classes[k])} {auroc(probs, labels, positive=k):.3f}"
        trace(figure, *roc_curve(probs[:, k], labels == k), name, line=line(i))
    for i, point in enumerate(points):
        sensitivity, specificity = point.sensitivity.value, point.specificity.value
        if sensitivity is not None and specificity is not None:
            at = [1 - specificity], [sensitivity]
            trace(figure, *at, short(point.name), marker=mark(i))
    return figure


def precision_recall_figure(
    probs: Floats, labels: Ints, classes: Sequence[str], *, positive: int | None = None
) -> go.Figure:
    """Precision over sensitivity, and the prevalence, which guessing would reach."""
    figure = blank("Sensitivity (recall)", "Precision", xaxis=SHARES, yaxis=SHARES)
    for i, k in enumerate(drawn(labels, len(classes), positive)):
        name, share = short(classes[k]), float((labels == k).mean())
        label = f"{name} {auprc(probs, labels, positive=k):.3f}"
        trace(figure, *precision_recall_curve(probs[:, k], labels == k), label, line=line(i))
        faint = DOTTED | ({} if positive is not None else {"color": line(i)["color"]})
        shown = {"showlegend": positive is not None, "hoverinfo": "name"}
        trace(figure, [0, 1], [share] * 2, f"prevalence {share:.3f}", line=faint, **shown)
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
    trace(figure, [0, 1], [0, 1], "ideal", line=DOTTED, hoverinfo="skip", row=1, col=1)
    told = "probability %{x:.3f}<br>share %{y:.3f}<br>%{customdata} images<extra></extra>"
    more = {"error_y": bars, "customdata": n, "hovertemplate": told, "row": 1, "col": 1}
    trace(figure, x, y, "bin", line=line(0), marker={"size": 7}, **more)
    middles = (np.arange(ECE_BINS) + 0.5) / ECE_BINS
    figure.add_bar(x=middles, y=counts, marker={"color": COLOURS[0]}, hoverinfo="y", row=2, col=1)
    figure.update_xaxes(SHARES | {"title": {"text": "Probability"}}, row=2, col=1)
    figure.update_yaxes(title_text="Images", nticks=3, row=2, col=1)
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
    kinds, what = ("wrong", "right"), "Highest probability"
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
        stairs = {"line": line(i), "line_shape": "hv", "fill": "tozeroy"}
        trace(figure, edges, np.append(y, y[-1]), name, **stairs)
    for i, point in enumerate(points):
        ends = (
            [point.threshold] if point.refer_from is None else [point.refer_from, point.threshold]
        )
        across = [v for at in ends for v in (at, at, None)]
        up = [v for _ in ends for v in (0, top, None)]
        name = f"{short(point.name)} {' to '.join(f'{at:.3f}' for at in ends)}"
        trace(figure, across, up, name, line=DOTTED | {"dash": "solid"}, marker=mark(i))
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
