"""The report: one page of figures and tables that opens without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from ensemble import figures
from ensemble.bundle import Manifest
from ensemble.evaluate import Evaluation
from search.objectives import LOWER_IS_BETTER
from search.report.canvas import (
    Chart,
    chart,
    is_number,
    number,
    percent,
    write_charts_page,
)

SKIPPED = 100  # images listed
MORE_IS_BETTER = {"auroc", "auprc", "accuracy", "balanced_accuracy", "f1"}
# Sensitivity and specificity are bought with one another, and one who says the prevalence of every
# image has no calibration error: none of these is best alone.
RANKED = MORE_IS_BETTER | {"nll", "brier"}


@dataclass(frozen=True)
class Curve:
    """One trial's history: metrics an epoch, None where undefined."""

    name: str
    epochs: list[dict[str, float | None]]
    is_member: bool


@dataclass(frozen=True)
class Cell:
    """One cell of the leaderboard; best among its column, ties as they are printed."""

    text: str
    is_number: bool
    is_best: bool


def write_report(
    path: Path,
    evaluation: Evaluation,
    manifest: Manifest | None,
    *,
    title: str,
    leaderboard: Sequence[dict[str, Any]] = (),
    curves: Sequence[Curve] = (),
    notes: Sequence[str] = (),
) -> None:
    """Write the page as one file that loads nothing.

    Args:
        manifest: of the bundle that was evaluated; None leaves its section out.
        leaderboard: rows with equal keys; "who" is "ensemble" in the row to stand out.
        curves: trials of the study.
    """
    write_charts_page(
        path,
        Path(__file__).parent,
        title=title,
        evaluation=evaluation,
        manifest=manifest,
        chosen={p.name: p for p in manifest.operating_points} if manifest else {},
        leaderboard=leaderboard,
        cells=leaderboard_cells(leaderboard),
        charts=_charts(evaluation, curves),
        notes=notes,
        less=LOWER_IS_BETTER,
        shown=SKIPPED,
    )


def leaderboard_cells(rows: Sequence[dict[str, Any]]) -> list[list[Cell]]:
    """Cells as they are printed, the best of each metric marked."""
    best: dict[str, str] = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows if is_number(row[name])]
        if values and name in RANKED:
            best[name] = number(min(values) if name in LOWER_IS_BETTER else max(values))
    return [[_cell(name, value, best) for name, value in row.items()] for row in rows]


def _cell(name: str, value: Any, best: dict[str, str]) -> Cell:
    text = value if isinstance(value, str) else number(value)
    return Cell(text, not isinstance(value, str), is_number(value) and text == best.get(name))


def _charts(evaluation: Evaluation, curves: Sequence[Curve]) -> list[Chart]:
    e, positive = evaluation, evaluation.positive
    data, points = (e.probs, e.labels, e.classes), e.operating_points
    lines = figures.drawn(e.labels, len(e.classes), positive)
    charts = []

    def add(key: str, name: str, caption: str, figure: go.Figure, *pixels: int) -> None:
        charts.append(chart(key, name, figure, *pixels, caption=caption))

    if lines:
        extra = 20 * (len(lines) + len(points))  # pixels of the legend
        roc = figures.roc_figure(*data, positive=positive, points=points)
        add("roc", "ROC", _roc_caption(e, lines), roc, 360 + extra)
        recall = figures.precision_recall_figure(*data, positive=positive)
        add("recall", "Precision and recall", _recall_caption(e, lines), recall, 360 + extra)
    reliability = figures.reliability_figure(e.probs, e.labels, positive=positive)
    add("reliability", "Calibration", _reliability_caption(e), reliability, 400)
    scores = figures.score_figure(*data, positive=positive, points=points)
    add("scores", "Probabilities", _score_caption(e), scores, 400 + 20 * len(points))
    confusion = figures.confusion_figure(e.confusion, e.classes)
    side = min(180 + 40 * len(e.classes), 1000)
    add("confusion", "Confusion", _confusion_caption(e), confusion, max(side, 380), side)
    if any(curve.epochs for curve in curves):
        members, others = _histories(curves, True), _histories(curves, False)
        training = figures.training_figure(members, others)
        height = 380 + 20 * len(members)
        add("training", "Training", _training_caption(members, others), training, height)
    return charts


def _histories(curves: Sequence[Curve], is_member: bool) -> list[figures.History]:
    chosen = [curve for curve in curves if curve.is_member == is_member]
    return [(curve.name, [epoch.get("nll") for epoch in curve.epochs]) for curve in chosen]


def _count(e: Evaluation) -> str:
    count = f"{len(e.labels):,} images"
    if e.positive is None:
        return count
    return f"{count}, {(e.labels == e.positive).sum():,} {e.classes[e.positive]}"


def _over(e: Evaluation, lines: Sequence[int]) -> str:
    shown = "" if len(lines) == len(e.classes) else f", {len(lines)} of {len(e.classes)} drawn"
    return f"mean over {len(e.classes)} classes ({_count(e)}{shown})"


def _roc_caption(e: Evaluation, lines: Sequence[int]) -> str:
    value = number(e.metrics["auroc"])
    if e.positive is None:
        return f"AUROC {value}, {_over(e, lines)}."
    marks = "; the marks are the operating points" if e.operating_points else ""
    return f"AUROC {value} ({_count(e)}){marks}."


def _recall_caption(e: Evaluation, lines: Sequence[int]) -> str:
    value = number(e.metrics["auprc"])
    if e.positive is None:
        return f"Average precision {value}, {_over(e, lines)}; dotted lines are prevalences."
    share = float((e.labels == e.positive).mean())
    return f"Average precision {value}, where guessing reaches the prevalence, {number(share)}."


def _reliability_caption(e: Evaluation) -> str:
    what = "the most probable class" if e.positive is None else e.classes[e.positive]
    return (
        f"Calibration error {number(e.metrics['ece'])} of the probability of {what}: on the dotted "
        "line it comes true as often as it says; bars are 95% Clopper-Pearson intervals."
    )


def _score_caption(e: Evaluation) -> str:
    score, hit = figures.scored(e.probs, e.labels, e.positive)
    if e.positive is None:
        return (
            f"The most probable class is right for {hit.sum():,} of {len(hit):,} images, with a "
            f"mean probability of {number(float(score.mean()))}."
        )
    name, of = e.classes[e.positive], f"the other {(~hit).sum():,} images"
    if not e.operating_points:
        return f"Probabilities of {name}, for {hit.sum():,} {name} and {of}."
    point = e.operating_points[0]
    called = score >= point["threshold"]
    return (
        f"From {number(point['threshold'])} on ({point['name']}), {(called & hit).sum():,} of "
        f"{hit.sum():,} {name} and {(called & ~hit).sum():,} of {of} count as {name}."
    )


def _confusion_caption(e: Evaluation) -> str:
    right = int(e.confusion.trace())
    share = percent(right / int(e.confusion.sum()))
    what = f"The most probable class is the true one for {right:,} images ({share})"
    return f"{what}; each row's shares add up to 100%."


def _training_caption(members: Sequence[figures.History], others: Sequence[figures.History]) -> str:
    found = [
        (value, epoch, name)
        for name, history in [*members, *others]
        for epoch, value in enumerate(history, 1)
        if value is not None
    ]
    counts = f"{len(members)} in the ensemble and {len(others):,} not"
    start = f"Validation log loss of all trials, {counts}"
    if not found:
        return f"{start}."
    value, epoch, name = min(found)
    return f"{start}; the lowest is {number(value)}, {name} in epoch {epoch}."
