"""What the figures and tables of all pages share: colours, a blank figure, printed numbers."""

import html
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from search.location import Place
from search.pages import page_environment, write_page

# Okabe & Ito, "Color universal design", 2008, without black and yellow: one fades into each page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "rgb(118, 118, 118)"  # reads on white and on black; the page puts its ink in its place
DOTTED = {"color": GREY, "dash": "dot", "width": 1.2}
NAME = 22  # characters of a name on an axis
FAR = 3  # interquartile ranges from the middle half beyond which a value leaves the frame
DECADES = 2  # factors of ten from which an axis is logarithmic
NAMES = {
    "auroc": "AUROC",
    "auprc": "Average precision",
    "nll": "Log loss",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
    "f1": "F1",
    "partial_auroc": "Partial AUROC",
    "params_m": "Params in millions",
    "latency_ms": "Latency in ms",
    "seconds": "Seconds of training",
    "specificity_at_sensitivity": "Specificity at threshold",
}


@dataclass(frozen=True)
class Chart:
    """A figure as the page embeds it."""

    key: str
    name: str
    figure: Markup
    height: int
    width: int = 0  # pixels below which it scrolls
    caption: str = field(default="", kw_only=True)  # what it shows, in a sentence


def chart(key: str, name: str, figure: go.Figure, *pixels: int, caption: str = "") -> Chart:
    """A figure with its height and, if given, its least width in pixels."""
    drawn = Markup(figure.to_json())  # noqa: S704 plotly escapes it
    return Chart(key, name, drawn, *pixels, caption=caption)


def write_charts_page(path: Place, folder: Path, *, charts: Sequence[Chart], **shown: Any) -> None:
    """Write a page by report.html.j2 in the folder, with plotly and the data of its charts."""
    environment = page_environment(folder, Path(__file__).parent)
    environment.filters |= {"number": number, "percent": percent, "label": label}
    template = environment.get_template("report.html.j2")
    plotly = Markup(get_plotlyjs())  # noqa: S704 plotly's own file
    write_page(path, template, charts=charts, plotly=plotly, **shown)


def blank(x: str, y: str, *, panes: go.Figure | None = None, **axes: Any) -> go.Figure:
    """An empty figure, or one of several panes, that reads on light and dark pages."""
    axis = {"gridcolor": "rgba(128, 128, 128, 0.22)", "zeroline": False, "automargin": True}
    axis["title"] = {"standoff": 8}
    base = dict.fromkeys(("paper_bgcolor", "plot_bgcolor"), "rgba(0, 0, 0, 0)") | {
        "font": {"color": GREY, "size": 13, "family": "system-ui, sans-serif"},
        "margin": {"l": 52, "r": 12, "t": 12, "b": 48},
        "legend": {"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0},
        "xaxis": axis,
        "yaxis": axis,
    }
    figure = panes or go.Figure()
    figure.layout.template = {"layout": base}  # in the place of plotly's own, 7 kB a figure
    return figure.update_layout(axes, xaxis_title_text=x, yaxis_title_text=y, dragmode=False)


def frame(values: Sequence[float], *, less: bool) -> list[float] | None:
    """An axis's range: the best value, and the worse ones that do not flatten the rest.

    `less` says that less is better. None where there is no value.
    """
    if not values:
        return None
    low, quarter, three, high = np.quantile(np.asarray(values, float), [0, 0.25, 0.75, 1])
    reach = FAR * (three - quarter)
    if reach:
        low, high = (low, min(high, three + reach)) if less else (max(low, quarter - reach), high)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return [float(low - pad), float(high + pad)]


def spans(values: Sequence[float]) -> bool:
    """Whether values are better told apart on a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) > 10**DECADES * min(values)


def short(name: str, limit: int = NAME) -> str:
    """A name cut to fit, its signs kept from plotly, which reads markup in texts."""
    return html.escape(name if len(name) <= limit else name[: limit - 1] + "…", quote=False)


def compact(value: float | None) -> float | None:
    """Five digits: what a screen can show."""
    return None if value is None else float(f"{value:.5g}")


def is_number(value: Any) -> bool:
    """True of a finite number."""
    return isinstance(value, numbers.Real) and math.isfinite(value)


def number(value: Any) -> str:
    """Three decimals; counts with separators; a dash for what is undefined."""
    if not is_number(value):
        return "–"
    return f"{value:,}" if isinstance(value, numbers.Integral) else f"{value:,.3f}"


def percent(value: Any) -> str:
    """One decimal where there is one; a dash for what is undefined."""
    return f"{value:.1%}".replace(".0%", "%") if is_number(value) else "–"


def label(name: str) -> str:
    """A metric's name in words."""
    return NAMES.get(name, name.replace("_", " ").capitalize())


def words(name: str) -> str:
    """The same within a sentence."""
    text = label(name)
    return text if text[:2].isupper() else text[0].lower() + text[1:]


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def plural(count: int, noun: str) -> str:
    """1 trial, 2 trials."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
