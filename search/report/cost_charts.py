"""Figures of what a study cost: who trained when, what the time went to, how folds differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import fmean, stdev
from typing import Any

import plotly.graph_objects as go

from search.report.canvas import COLOURS, DOTTED, blank, compact, label, short
from search.report.charts import LOOKS
from search.study.records import TrialRecord

PAUSE = 600  # seconds in which nothing trains before they are cut out of the timeline
LANES = 40  # named on the axis
KINDS = {
    "starting": COLOURS[3],
    "training": COLOURS[0],
    "validation": COLOURS[2],
    "other": COLOURS[4],
}
FOLD = ("finalist's fold", COLOURS[2])


@dataclass(frozen=True)
class Span:
    """One training from start to end, in seconds since the first; pauses are cut out."""

    record: TrialRecord
    start: float

    @property
    def end(self) -> float:
        return self.start + self.record.seconds


@dataclass(frozen=True)
class Timeline:
    """Spans by start; `cuts` are where pauses were, `paused` the seconds they took together."""

    spans: list[Span]
    cuts: list[float]
    paused: float


def timeline_of(records: Sequence[TrialRecord]) -> Timeline:
    """When each trial trained; those that do not say so are left out."""
    known = [(_moment(r.started), r) for r in records if r.started and r.worker]
    known.sort(key=lambda pair: pair[0])
    spans: list[Span] = []
    cuts: list[float] = []
    end, paused = 0.0, known[0][0] if known else 0.0
    first = paused
    for moment, record in known:
        if spans and moment - paused - end > PAUSE:
            paused = moment - end
            cuts.append(end)
        spans.append(Span(record, moment - paused))
        end = max(end, spans[-1].end)
    return Timeline(spans, cuts, paused - first)


def lanes_of(timeline: Timeline) -> dict[str, str]:
    """A lane for each worker; those of a host that never overlap share one.

    A worker is "host:pid"; the lanes of a host are numbered from 1.
    """
    lives: dict[str, tuple[float, float]] = {}
    for span in timeline.spans:
        worker = str(span.record.worker)
        start, end = lives.get(worker, (span.start, span.end))
        lives[worker] = min(start, span.start), max(end, span.end)
    free: dict[str, list[float]] = {}  # by host: when each lane is free again
    lanes = {}
    for worker, (start, end) in sorted(lives.items(), key=lambda item: item[1]):
        host = worker.rpartition(":")[0] or worker
        ends = free.setdefault(host, [])
        lane = next((i for i, until in enumerate(ends) if until <= start), len(ends))
        ends[lane : lane + 1] = [end]
        lanes[worker] = f"{host} {lane + 1}"
    return lanes


def timeline_figure(timeline: Timeline) -> go.Figure:
    """A row a lane of workers and a bar a trial, coloured by how it ended."""
    lanes = lanes_of(timeline)
    names = sorted(set(lanes.values()), key=_by_host, reverse=True)
    places = {name: place for place, name in enumerate(names)}
    longest = max((span.end for span in timeline.spans), default=0)
    unit, seconds = ("Hours", 3600) if longest > 7200 else ("Minutes", 60)
    shown = {"tickvals": list(places.values()), "ticktext": [short(name, 32) for name in names]}
    ticks = shown if len(names) <= LANES else {"showticklabels": False}
    figure = blank(
        f"{unit} of searching",
        "Worker",
        yaxis=ticks | {"showgrid": False, "range": [-0.6, len(names) - 0.4]},
        **{"xaxis": {"rangemode": "tozero"}, "barmode": "overlay", "hovermode": "closest"},
    )
    looks = {kind: colour for kind, (colour, _) in LOOKS.items()} | dict([FOLD])
    for kind, colour in looks.items():
        group = [span for span in timeline.spans if _kind(span.record) == kind]
        if group:
            bars = _bars(group, [places[lanes[str(s.record.worker)]] for s in group], seconds)
            name = f"{kind} ({len(group):,})"
            edge = {"color": "rgba(128, 128, 128, 0.6)", "width": 0.5}
            figure.add_bar(**bars, name=name, marker={"color": colour, "line": edge})
    for cut in timeline.cuts:
        figure.add_vline(x=cut / seconds, line=DOTTED)
    return figure


def times_of(record: TrialRecord) -> tuple[float, float, float, float]:
    """Seconds before the first step, of training, of validation, and of the rest."""
    setup = record.setup_seconds or 0.0
    train, val = (
        sum(epoch.get(name) or 0.0 for epoch in record.epochs)
        for name in ("train_seconds", "val_seconds")
    )
    return setup, train, val, max(record.seconds - setup - train - val, 0.0)


def times_figure(records: Sequence[TrialRecord]) -> go.Figure:
    """Hours or minutes by how trials ended, and by what they went to."""
    kinds = list(dict.fromkeys(sorted((_kind(r) for r in records), key=_order, reverse=True)))
    longest = sum(r.seconds for r in records)
    unit, seconds = ("Hours", 3600) if longest > 7200 else ("Minutes", 60)
    figure = blank(
        f"{unit} of all trials together",
        "",
        barmode="stack",
        legend={"traceorder": "normal"},
        xaxis={"rangemode": "tozero"},
    )
    for part, (name, colour) in enumerate(KINDS.items()):
        figure.add_bar(
            x=[sum(times_of(r)[part] for r in records if _kind(r) == k) / seconds for k in kinds],
            y=kinds,
            orientation="h",
            name=name,
            marker={"color": colour},
            hovertemplate=f"%{{y}}, {name}<br>%{{x:.2f}} {unit.lower()}<extra></extra>",
        )
    return figure


def folds_figure(finalists: Mapping[int, Sequence[TrialRecord]], objective: str) -> go.Figure:
    """A column a finalist: its value on each fold, and mean and deviation without fold 0.

    Args:
        finalists: trial number to its records, fold 0 first where it has one.
    """
    figure = blank("Finalist", label(objective), xaxis={"type": "category"}, hovermode="closest")
    rest = {n: [r for r in found if r.fold > 0] for n, found in finalists.items()}
    values = {n: [r.value for r in found if r.value is not None] for n, found in rest.items()}
    told = {n: (fmean(v), stdev(v) if len(v) > 1 else 0.0) for n, v in values.items() if v}
    figure.add_scatter(
        x=[f"trial {n}" for n in told],
        y=[mean for mean, _ in told.values()],
        error_y={"array": [sd for _, sd in told.values()], "thickness": 1.5, "width": 8},
        name="mean ± standard deviation of folds 1 and up",
        mode="markers",
        marker={"symbol": "line-ew", "size": 26, "line": {"width": 3, "color": COLOURS[0]}},
        hovertemplate="%{x}<br>mean %{y:.4f} ± %{error_y.array:.4f}<extra></extra>",
    )
    dots = {"color": COLOURS[0], "size": 8}
    _folds(figure, [r for found in rest.values() for r in found], "folds 1 and up", dots)
    first = [r for found in finalists.values() for r in found if r.fold == 0]
    look = {"color": COLOURS[1], "symbol": "diamond-open", "size": 10, "line": {"width": 2}}
    _folds(figure, first, "fold 0, which chose them", look)
    return figure


def _folds(
    figure: go.Figure, records: Sequence[TrialRecord], name: str, marker: Mapping[str, Any]
) -> None:
    figure.add_scatter(
        x=[f"trial {r.number}" for r in records],
        y=[compact(r.value) for r in records],
        customdata=[r.fold for r in records],
        hovertemplate="%{x}, fold %{customdata}<br>%{y:.4f}<extra></extra>",
        **{"name": name, "mode": "markers", "marker": marker},
    )


def _bars(group: Sequence[Span], places: Sequence[int], seconds: int) -> dict[str, Any]:
    texts = [
        f"trial {s.record.number}, fold {s.record.fold}<br>{short(s.record.params.backbone, 40)}"
        f"<br>{s.record.seconds / 60:.1f} min<br>{short(str(s.record.worker), 60)}"
        for s in group
    ]
    return {
        "x": [compact(s.record.seconds / seconds) for s in group],
        "base": [compact(s.start / seconds) for s in group],
        **{"y": list(places), "orientation": "h", "width": 0.8, "text": texts},
        **{"textposition": "none", "hovertemplate": "%{text}<extra></extra>"},
    }


def _kind(record: TrialRecord) -> str:
    return FOLD[0] if record.fold > 0 else record.status


def _order(kind: str) -> int:
    kinds = [*LOOKS, FOLD[0]]
    return kinds.index(kind)


def _by_host(lane: str) -> tuple[str, int]:
    host, _, place = lane.rpartition(" ")
    return host, int(place)


def _moment(started: str | None) -> float:
    moment = datetime.fromisoformat(str(started))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
