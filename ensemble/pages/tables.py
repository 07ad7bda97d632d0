"""Sections of a report as data: what the template draws, and how numbers are printed in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ensemble.evaluation.results import Estimate, Example
from ensemble.pages.forest import Forest
from search.objectives import LOWER_IS_BETTER
from search.report import canvas
from search.report.canvas import Chart, number

NAMES = {
    "smooth_ece": "Smooth ECE",
    "aurc": "AURC",
    "augrc": "AUGRC",
    "ppv": "PPV",
    "npv": "NPV",
    "mce": "MCE",
    "specificity_at_95": "Specificity at 95% sensitivity",
    "sensitivity_at_point": "Sensitivity at its point",
    "specificity_at_point": "Specificity at its point",
}
LESS = LOWER_IS_BETTER | {"smooth_ece", "aurc", "augrc", "mce"}


@dataclass(frozen=True)
class Cell:
    """Text, what stands smaller below it, and its tone: "", good, warn or best."""

    text: str
    faint: str = ""
    tone: str = ""
    is_number: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells below headings; the first cell of a row is its name."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    ours: int | None = None  # index of the row that stands out

    @property
    def numeric(self) -> list[bool]:
        """Whether a column's cells are numbers."""
        return [all(row[k].is_number for row in self.rows) for k in range(len(self.columns))]


@dataclass(frozen=True)
class Section:
    """A heading, what was found in a sentence, and what shows it."""

    key: str
    title: str
    finding: str
    charts: Sequence[Chart] = ()
    forests: Sequence[Forest] = ()
    tables: Sequence[Table] = ()
    examples: Sequence[Example] = ()
    items: Sequence[str] = field(default=(), kw_only=True)
    tone: str = field(default="", kw_only=True)


def text(value: str | None, faint: str = "", tone: str = "") -> Cell:
    """A cell of words."""
    return Cell(value or "–", faint, tone)


def figure(value: float | None, faint: str = "", tone: str = "") -> Cell:
    """A cell of one number."""
    return Cell(number(value), faint, tone, is_number=True)


def estimated(estimate: Estimate | None, tone: str = "") -> Cell:
    """A cell of a number with its interval below it."""
    if estimate is None:
        return Cell("–", is_number=True)
    return Cell(number(estimate.value), interval(estimate), tone, is_number=True)


def interval(estimate: Estimate, *, signed: bool = False) -> str:
    """0.880 to 0.960; nothing where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    form = "+.3f" if signed else ".3f"
    return f"{estimate.low:{form}} to {estimate.high:{form}}"


def told(estimate: Estimate) -> str:
    """0.930 (0.880 to 0.960), within a sentence."""
    around = interval(estimate)
    return number(estimate.value) + (f" ({around})" if around else "")


def label(metric: str) -> str:
    """A metric's name in words."""
    return NAMES.get(metric) or canvas.label(metric)


def words(metric: str) -> str:
    """The same within a sentence."""
    name = label(metric)
    return name if name[:2].isupper() else name[0].lower() + name[1:]


def arrow(metric: str) -> str:
    """The name with a sign where less is better."""
    return f"{label(metric)} ↓" if metric in LESS else label(metric)


def metrics_of(rows: Sequence[object]) -> list[str]:
    """Names of the metrics that any of the rows has, in the order they come."""
    return list(dict.fromkeys(name for row in rows for name in getattr(row, "metrics", {})))
