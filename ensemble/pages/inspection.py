"""What `consilium inspect` prints of a bundle: titles with rows."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ensemble.bundle import Bundle
from ensemble.decision.points import OperatingPoint
from ensemble.evaluation.results import Evaluation
from ensemble.manifest import Manifest
from ensemble.pages.tables import label, told
from ensemble.pages.technical import calibrator_text
from search.errors import BundleError
from search.report.canvas import number, percent

Rows = list[dict[str, Any]]
Titled = list[tuple[str, Rows]]
HEADLINE = (
    *("auroc", "auprc", "nll", "brier", "ece", "smooth_ece", "accuracy", "balanced_accuracy"),
    *("specificity_at_95", "augrc"),
)


def inspect_rows(bundle: Bundle, metrics: Mapping[str, Any]) -> Titled:
    """Identity, members, calibrator, operating points, and the test's headline numbers.

    Args:
        metrics: the bundle's metrics.json; {} where it has none.

    Returns:
        Titles with rows of equal keys; what the bundle has not is left out.

    Raises:
        BundleError: metrics.json is not as it was built.
    """
    m = bundle.manifest
    test = evaluation_of(bundle, metrics)
    titled = [
        ("Bundle", identity_rows(m)),
        ("Members", member_rows(m)),
        ("Calibration", [{"calibrator": calibrator_text(m.calibrator)}]),
        ("Operating points", [_point(p) for p in m.operating_points]),
        ("When members are lost", _survivors(m)),
        ("Cascade", _cascade(m)),
        ("Images that do not belong", _novelty(m)),
        ("Gates", _gates(m, metrics)),
        ("Test", _test(test)),
        ("Test at the operating points", _results(test)),
    ]
    return [(title, rows) for title, rows in titled if rows]


def evaluation_of(bundle: Bundle, metrics: Mapping[str, Any]) -> Evaluation | None:
    """The sealed test's numbers; None where there are none.

    Raises:
        BundleError: they are not as they were built.
    """
    if metrics.get("test") is None:
        return None
    try:
        return Evaluation.model_validate(metrics["test"])
    except ValidationError as error:
        where = ".".join(str(key) for key in error.errors()[0]["loc"])
        raise BundleError(
            f"{bundle.folder / 'metrics.json'}: test.{where} is not as built; "
            "build the bundle again"
        ) from error


def identity_rows(m: Manifest) -> Rows:
    """Name, version, classes and digests: one row a fact."""
    facts = {
        "name": f"{m.name} {m.version}",
        "created": m.created,
        "digest": m.digest or "not sealed",
        "classes": ", ".join(m.classes),
        "positive": m.positive or "none",
        "prevalence": ", ".join(f"{name} {percent(share)}" for name, share in m.prevalence.items()),
        "test-time augmentation": m.test_time_augmentation,
        "data": m.provenance.get("data_digest", "not stated"),
        "splits": m.provenance.get("splits_hash", "not stated"),
    }
    return [{"what": key, "value": value} for key, value in facts.items()]


def member_rows(m: Manifest) -> Rows:
    """One row a member."""
    return [
        {
            "member": x.name,
            "backbone": x.params.backbone,
            "pixels": x.preprocessing.size,
            "weight": round(x.weight, 3),
            "networks": len(x.networks),
            "params_m": round(x.params_m, 2),
            "latency_ms": round(x.latency_ms, 1),
        }
        for x in m.members
    ]


def status(point: OperatingPoint) -> str:
    """certified, or why not."""
    return "certified" if point.certified else f"not certified: {point.reason}"


def thresholds(point: OperatingPoint) -> str:
    """One threshold, or the two of a refer band."""
    if point.refer_from is None:
        return number(point.threshold)
    return f"{number(point.refer_from)} to {number(point.threshold)}"


def _point(p: OperatingPoint) -> dict[str, Any]:
    return {
        "point": p.name,
        "target": p.target,
        "threshold": thresholds(p),
        "sensitivity": _rate(p.sensitivity, p.sensitivity_interval),
        "specificity": _rate(p.specificity, p.specificity_interval),
        "positives": p.n_positive,
        "status": status(p),
    }


def _rate(value: float, interval: tuple[float, float]) -> str:
    return f"{number(value)} ({number(interval[0])} to {number(interval[1])})"


def _survivors(m: Manifest) -> Rows:
    return [
        {
            "members": ", ".join(s.members),
            "calibrator": calibrator_text(s.calibrator),
            "certified": ", ".join(p.name for p in s.operating_points if p.certified) or "none",
        }
        for s in m.survivors
    ]


def _cascade(m: Manifest) -> Rows:
    return [
        {
            "point": a.point,
            "decided otherwise": f"{a.disagreements} of {a.n}",
            "at most": percent(a.at_most),
            "cost": percent(a.cost),
        }
        for a in (m.cascade.agreements if m.cascade else [])
    ]


def _novelty(m: Manifest) -> Rows:
    measured = m.out_of_distribution.measured if m.out_of_distribution else []
    return [
        {"kind": k.kind, "images": k.n, "auroc": number(k.auroc), "flagged": percent(k.flagged)}
        for k in measured
    ]


def _gates(m: Manifest, metrics: Mapping[str, Any]) -> Rows:
    rows = [
        {"gate": v["gate"], "verdict": "holds" if v["holds"] else "failed", "rule": v["rule"]}
        for v in metrics.get("verdicts") or []
    ]
    forced = [{"gate": gate, "verdict": "overridden by force", "rule": ""} for gate in m.gates]
    return [*rows, *forced]


def _test(test: Evaluation | None) -> Rows:
    if test is None:
        return []
    named = [(name, test.metrics[name]) for name in HEADLINE if name in test.metrics]
    rows = [{"metric": label(name), "value": told(estimate)} for name, estimate in named]
    return [{"metric": "Images", "value": f"{test.n_images:,}"}, *rows]


def _results(test: Evaluation | None) -> Rows:
    return [
        {
            "point": p.name,
            "sensitivity": told(p.sensitivity),
            "specificity": told(p.specificity),
            "ppv": told(p.ppv),
            "npv": told(p.npv),
            "referred": percent(p.referred),
        }
        for p in (test.operating_points if test else [])
    ]
