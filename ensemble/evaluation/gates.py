"""Gates: what must hold on the sealed test. What cannot be judged does not hold."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ensemble.config import GateConfig
from ensemble.evaluation.results import Estimate, Estimates, Evaluation, Subgroup, Verdict
from search.errors import ConfigError
from search.objectives import LOWER_IS_BETTER

LESS_IS_BETTER = LOWER_IS_BETTER | {"smooth_ece", "aurc", "augrc"}
NO_DIRECTION = frozenset({"calibration_slope", "calibration_intercept"})  # best at 1, at 0
COUNTED = {"sensitivity": "positive images", "specificity": "negative images"}  # else all images
Details = Mapping[str, float | None]
ROUNDING = 1e-9  # 0.8 - 0.7 comes out above 0.1


class _Part(NamedTuple):
    """A subgroup with enough cases, and the metric there; None where it is undefined."""

    column: str
    value: str
    n: int
    metric: float | None

    @property
    def name(self) -> str:
        return f"{self.column} {self.value}"


def judge(
    gates: Sequence[GateConfig],
    evaluation: Evaluation,
    *,
    best_single: Evaluation | Estimates | None,
) -> list[Verdict]:
    """Hold an evaluation against each gate; a verdict for each, in their order.

    Sensitivity and specificity are those at the first operating point, where there is one. Limits
    are of the value itself; only "best single" uses an interval, its own. A gate does not hold
    where its metric is undefined, where no subgroup has enough cases, or where one that has enough
    has no value.

    Args:
        best_single: the calibrated best single candidate on the same images.

    Raises:
        ConfigError: a metric that is not known, or that has no better direction.
    """
    check_gates(gates, {*evaluation.metrics}, has_points=bool(evaluation.operating_points))
    return [_judge(gate, evaluation, best_single) for gate in gates]


def check_gates(gates: Sequence[GateConfig], metrics: set[str], *, has_points: bool) -> None:
    """See that gates can be judged, before anything is evaluated.

    Args:
        metrics: that an evaluation will have.
        has_points: there will be operating points.

    Raises:
        ConfigError: a metric that is not known, or that has no better direction.
    """
    known = {*metrics, *(COUNTED if has_points else ())}
    for gate in gates:
        _refuse_unknown(gate, known)


def _refuse_unknown(gate: GateConfig, known: set[str]) -> None:
    if gate.metric not in known:
        raise ConfigError(
            f"ensemble.gates: no metric {gate.metric!r}; there are {', '.join(sorted(known))}"
        )
    if gate.not_worse_than is not None and gate.metric in NO_DIRECTION:
        raise ConfigError(
            f"ensemble.gates: {gate.metric} is neither better higher nor lower, so not_worse_than "
            "says nothing; use at_least and at_most"
        )


def _judge(
    gate: GateConfig, evaluation: Evaluation, best_single: Evaluation | Estimates | None
) -> Verdict:
    if gate.parity is not None:
        return _parity(gate, gate.parity, _parts(gate, evaluation))
    if gate.not_worse_than is not None:
        return _against(gate, evaluation, best_single)
    if gate.subgroups:
        return _in_every_subgroup(gate, _parts(gate, evaluation))
    value = _value(_estimate(gate.metric, evaluation))
    rule = f"{gate.metric} {_limit(gate)} on the test"
    if value is None:
        return _verdict(gate, f"{rule}: it is undefined there", holds=False)
    return _verdict(
        gate, f"{rule}: it is {value:.4g}", holds=_within(gate, value), details={"value": value}
    )


def _against(
    gate: GateConfig, evaluation: Evaluation, best_single: Evaluation | Estimates | None
) -> Verdict:
    less = gate.metric in LESS_IS_BETTER
    end = "upper" if less else "lower"
    rule = f"{gate.metric} not worse than the {end} end of the best single's interval"
    value = _value(_estimate(gate.metric, evaluation))
    other = None if best_single is None else _estimate(gate.metric, best_single)
    bound = None if other is None else _finite(other.high if less else other.low)
    details = {"value": value, "bound": bound}
    if value is None or bound is None:
        whose = "the ensemble" if value is None else "the best single"
        return _verdict(gate, f"{rule}: {whose} has none", holds=False, details=details)
    holds = value <= bound + ROUNDING if less else value >= bound - ROUNDING
    text = f"{rule}: it is {value:.4g}, the end {bound:.4g}"
    return _verdict(gate, text, holds=holds, details=details)


def _in_every_subgroup(gate: GateConfig, parts: Sequence[_Part]) -> Verdict:
    rule = f"{gate.metric} {_limit(gate)} in every subgroup of {_enough(gate)}"
    if not parts:
        return _verdict(gate, f"{rule}: there is none so large", holds=False)
    details = {part.name: part.metric for part in parts}
    unknown = next((part for part in parts if part.metric is None), None)
    if unknown is not None:
        return _verdict(gate, f"{rule}: undefined in {unknown.name}", holds=False, details=details)
    sign = 1 if gate.at_least is not None else -1
    worst = min(parts, key=lambda part: sign * _known(part))
    text = f"{rule}: worst of {len(parts)} is {_known(worst):.4g} in {worst.name} ({worst.n})"
    return _verdict(gate, text, holds=_within(gate, _known(worst)), details=details)


def _parity(gate: GateConfig, limit: float, parts: Sequence[_Part]) -> Verdict:
    rule = f"{gate.metric} of the subgroups of one column differs by at most {limit:.4g}"
    columns: dict[str, list[_Part]] = defaultdict(list)
    for part in parts:
        columns[part.column].append(part)
    several = {name: found for name, found in columns.items() if len(found) > 1}
    if not several:
        text = f"{rule}: no column has two subgroups of {_enough(gate)}"
        return _verdict(gate, text, holds=False)
    unknown = next((p for found in several.values() for p in found if p.metric is None), None)
    if unknown is not None:
        return _verdict(gate, f"{rule}: undefined in {unknown.name}", holds=False)
    gaps = {
        name: max(map(_known, found)) - min(map(_known, found)) for name, found in several.items()
    }
    widest = max(gaps, key=lambda name: gaps[name])
    low, high = min(several[widest], key=_known), max(several[widest], key=_known)
    text = (
        f"{rule}: widest is {gaps[widest]:.4g} between {low.name} ({_known(low):.4g}) "
        f"and {high.name} ({_known(high):.4g})"
    )
    return _verdict(gate, text, holds=gaps[widest] <= limit + ROUNDING, details=gaps)


def _parts(gate: GateConfig, evaluation: Evaluation) -> list[_Part]:
    """The subgroups with enough of the cases that the metric counts."""
    parts = []
    for group in evaluation.subgroups:
        n = _cases(gate.metric, group)
        if n >= gate.min_cases:
            metric = _value(group.metrics.get(gate.metric))
            parts.append(_Part(group.column, group.value, n, metric))
    return parts


def _cases(metric: str, group: Subgroup) -> int:
    if metric not in COUNTED:
        return group.n
    positives = group.n_positive
    if positives is None:
        return 0
    return positives if metric == "sensitivity" else group.n - positives


def _estimate(metric: str, found: Evaluation | Estimates) -> Estimate | None:
    if not isinstance(found, Evaluation):  # a leaderboard's row has both rates, of other decisions
        return found.get(f"{metric}_at_point", found.get(metric))
    if metric in COUNTED and found.operating_points:
        point = found.operating_points[0]
        return point.sensitivity if metric == "sensitivity" else point.specificity
    return found.metrics.get(metric)


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else _finite(estimate.value)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _known(part: _Part) -> float:
    return math.nan if part.metric is None else part.metric


def _within(gate: GateConfig, value: float) -> bool:
    if gate.at_least is not None:
        return value >= gate.at_least - ROUNDING
    return gate.at_most is not None and value <= gate.at_most + ROUNDING


def _limit(gate: GateConfig) -> str:
    return (
        f"at least {gate.at_least:.4g}"
        if gate.at_least is not None
        else f"at most {gate.at_most:.4g}"
    )


def _enough(gate: GateConfig) -> str:
    return f"at least {gate.min_cases} {COUNTED.get(gate.metric, 'images')}"


def _verdict(
    gate: GateConfig, rule: str, *, holds: bool, details: Details | None = None
) -> Verdict:
    where = "parity" if gate.parity is not None else "subgroups" if gate.subgroups else "test"
    if gate.not_worse_than is not None:
        where = f"not worse than {gate.not_worse_than}"
    return Verdict(
        gate=f"{gate.metric}, {where}", rule=rule, holds=holds, details=dict(details or {})
    )
