"""Forest plots without a script: numbers with intervals in, positions along an axis out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ensemble.evaluation.results import Estimate

PAD = 0.06  # of the range, beyond the outermost end
TICKS = 3.5  # about as many: the axis may be 130 pixels wide
FAR = 2.5  # times the span of the values beyond which an interval's end leaves the frame


@dataclass(frozen=True)
class Row:
    """A number to draw: what of, what more there is to say, and the group it stands in."""

    label: str
    estimate: Estimate
    note: str = ""
    group: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Mark:
    """A row as it is drawn; positions in percent of the axis, None where undefined."""

    row: Row
    text: str
    at: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Forest:
    """Marks below one another on one axis, with a line to compare them with."""

    name: str
    caption: str
    marks: Sequence[Mark]
    ticks: Sequence[tuple[float, str]]  # percent, text
    reference: float | None  # percent


def forest(
    name: str,
    rows: Sequence[Row],
    *,
    caption: str = "",
    reference: float | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Forest:
    """Lay rows out along an axis that holds all of them.

    Args:
        rows: at least one with a value.
        reference: where the line stands: 0 for differences, the whole's value for subgroups.
        bounds: the axis never reaches beyond: 0 and 1 for rates.
    """
    low, high = _range(rows, reference, bounds)
    step = _step(high - low)
    signed = reference == 0
    ticks = [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]

    def place(value: float | None) -> float | None:
        return (
            None if value is None else round(100 * min(max((value - low) / (high - low), 0), 1), 2)
        )

    marks = [
        Mark(row, written(row.estimate, signed=signed), *(place(v) for v in _ends(row.estimate)))
        for row in rows
    ]
    named = [(place(tick) or 0.0, f"{tick:.{_digits(step)}f}") for tick in ticks]
    return Forest(name, caption, marks, named, place(reference))


def written(estimate: Estimate, *, signed: bool = False) -> str:
    """0.93 (0.88 to 0.96), with a sign where it is a difference; a dash where undefined."""
    form = "+.3f" if signed else ".3f"
    if estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def _ends(estimate: Estimate) -> tuple[float | None, float | None, float | None]:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate.value, None, None
    return estimate.value, estimate.low, estimate.high


def _range(
    rows: Sequence[Row], reference: float | None, bounds: tuple[float, float]
) -> tuple[float, float]:
    """Ends of the axis; one endless interval does not flatten the rest."""
    values = [row.estimate.value for row in rows if row.estimate.value is not None]
    if reference is not None:
        values.append(reference)
    ends = [v for row in rows for v in _ends(row.estimate) if v is not None] + values
    reach = FAR * (max(values) - min(values)) or math.inf
    low = max(min(ends), min(values) - reach)
    high = min(max(ends), max(values) + reach)
    pad = PAD * (high - low) or 0.05 * abs(high) or 0.5
    return max(low - pad, bounds[0] - pad / 3), min(high + pad, bounds[1] + pad / 3)


def _step(span: float) -> float:
    """A round distance of ticks: 1, 2 or 5 times a power of ten."""
    rough = span / TICKS
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)


def _digits(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))
