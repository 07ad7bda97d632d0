"""What `consilium diff` prints of two bundles: titles with rows of what is not the same."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from ensemble.bundle import Bundle
from ensemble.decision.points import OperatingPoint
from ensemble.evaluation.results import Estimate, Evaluation
from ensemble.manifest import Manifest
from ensemble.pages.inspection import (
    HEADLINE,
    Rows,
    Titled,
    evaluation_of,
    identity_rows,
    member_rows,
    status,
    thresholds,
)
from ensemble.pages.tables import label, told
from ensemble.pages.technical import calibrator_text
from search.report.canvas import number, percent

T = TypeVar("T")
NONE = "–"


def compare(
    a: Bundle, b: Bundle, metrics_a: Mapping[str, Any], metrics_b: Mapping[str, Any]
) -> Titled:
    """What differs, and the test's numbers side by side.

    Args:
        metrics_a: the first bundle's metrics.json; {} where it has none.
        metrics_b: the second one's.

    Returns:
        Titles with rows of keys "what", "a" and "b"; those without a difference are left out,
        but for the test's, which are all there. The first says whether the bundles are the same.

    Raises:
        BundleError: a metrics.json is not as it was built.
    """
    one, two = a.manifest, b.manifest
    tests = evaluation_of(a, metrics_a), evaluation_of(b, metrics_b)
    titled = [
        ("Bundles", _identity(one, two)),
        ("Classes", _prevalence(one, two)),
        ("Members", _members(one, two)),
        ("Calibration", _calibration(one, two)),
        ("Operating points", _points(one, two)),
        ("Parts", _parts(one, two)),
        ("Test", _tests(one, two, *tests)),
    ]
    return [(title, rows) for title, rows in titled if rows]


def same_test(a: Manifest, b: Manifest) -> bool | None:
    """Whether both were tested on the same images; None where a bundle does not say."""
    first, second = (m.provenance.get("splits_hash") for m in (a, b))
    return None if first is None or second is None else bool(first == second)


def _row(what: str, a: object, b: object) -> dict[str, Any]:
    return {"what": what, "a": a, "b": b}


def _changed(rows: Iterable[dict[str, Any]]) -> Rows:
    return [row for row in rows if row["a"] != row["b"]]


def _identity(a: Manifest, b: Manifest) -> Rows:
    facts = [
        {row["what"]: row["value"] for row in identity_rows(m) if row["what"] != "prevalence"}
        for m in (a, b)
    ]
    changed = _changed(_row(what, value, facts[1][what]) for what, value in facts[0].items())
    same = bool(a.digest) and a.digest == b.digest
    if same:
        return [_row("the same bundle", a.digest[:12], b.digest[:12])]
    return [_row("bundle", f"{a.name} {a.version}", f"{b.name} {b.version}"), *changed]


def _prevalence(a: Manifest, b: Manifest) -> Rows:
    names = list(dict.fromkeys([*a.prevalence, *b.prevalence]))
    return _changed(
        _row(name, percent(a.prevalence.get(name)), percent(b.prevalence.get(name)))
        for name in names
    )


def _members(a: Manifest, b: Manifest) -> Rows:
    told_of = [
        {row.pop("member"): ", ".join(f"{k} {v}" for k, v in row.items()) for row in member_rows(m)}
        for m in (a, b)
    ]
    return _changed(_paired(told_of[0], told_of[1], str))


def _calibration(a: Manifest, b: Manifest) -> Rows:
    return _changed(
        [_row("calibrator", calibrator_text(a.calibrator), calibrator_text(b.calibrator))]
    )


def _points(a: Manifest, b: Manifest) -> Rows:
    first, second = ({p.name: p for p in m.operating_points} for m in (a, b))
    asked: dict[str, Callable[[OperatingPoint], str]] = {
        "target": lambda p: p.target,
        "threshold": thresholds,
        "sensitivity": lambda p: number(p.sensitivity),
        "specificity": lambda p: number(p.specificity),
        "positives": lambda p: str(p.n_positive),
        "status": status,
    }
    rows = []
    for name, say in asked.items():
        rows += [row | {"what": f"{row['what']}: {name}"} for row in _paired(first, second, say)]
    order = list(dict.fromkeys([*first, *second]))
    rows.sort(key=lambda row: order.index(row["what"].rsplit(": ", 1)[0]))
    return _changed(rows)


def _parts(a: Manifest, b: Manifest) -> Rows:
    def parts(m: Manifest) -> dict[str, str]:
        cost = min((x.cost for x in m.cascade.agreements), default=1.0) if m.cascade else None
        novelty = m.out_of_distribution
        return {
            "subsets of members with a calibrator": str(len(m.survivors)),
            "cascade": NONE if cost is None else f"down to {percent(cost)} of the latency",
            "images that do not belong": NONE if novelty is None else f"told by {novelty.member}",
            "gates overridden by force": ", ".join(m.gates) or "none",
        }

    return _changed(_paired(parts(a), parts(b), str))


def _tests(a: Manifest, b: Manifest, one: Evaluation | None, two: Evaluation | None) -> Rows:
    if one is None and two is None:
        return []
    told_same = {
        True: "the same split",
        False: "not the same split: do not compare",
        None: "unknown",
    }
    same = told_same[same_test(a, b)]
    rows = [_row("images", _count(one), _count(two))]
    if one is not None and two is not None:
        rows.append(_row("tested on", same, same))
    first, second = (_estimates(test) for test in (one, two))
    return [*rows, *_paired(first, second, told)]


def _count(test: Evaluation | None) -> str:
    return NONE if test is None else f"{test.n_images:,}"


def _estimates(test: Evaluation | None) -> dict[str, Estimate]:
    if test is None:
        return {}
    found = {label(name): test.metrics[name] for name in HEADLINE if name in test.metrics}
    for p in test.operating_points:
        found |= {f"{p.name}: sensitivity": p.sensitivity, f"{p.name}: specificity": p.specificity}
    return found


def _paired(a: Mapping[str, T], b: Mapping[str, T], say: Callable[[T], str]) -> Rows:
    """A row for each name that either has, in the order they come."""
    names = dict.fromkeys([*a, *b])
    return [
        _row(name, *(say(side[name]) if name in side else NONE for side in (a, b)))
        for name in names
    ]
