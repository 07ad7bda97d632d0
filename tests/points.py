"""An operating point for tests that need one and do not mind which."""

from typing import Any

from ensemble.decision.points import OperatingPoint


def a_point(name: str = "first", threshold: float = 0.4, **changes: Any) -> OperatingPoint:
    """Not certified, of ten positives and twenty negatives; with `refer_from` a refer band."""
    fields: dict[str, Any] = {
        "kind": "refer" if changes.get("refer_from") is not None else "sensitivity",
        "target": "sensitivity at least 0.95",
        "confidence": 0.95,
        "sensitivity": 1.0,
        "specificity": 0.5,
        "sensitivity_interval": (0.7, 1.0),
        "specificity_interval": (0.3, 0.7),
        "n_positive": 10,
        "n_negative": 20,
        "certified": False,
        "reason": "a test's",
    }
    return OperatingPoint(name=name, threshold=threshold, **(fields | changes))
