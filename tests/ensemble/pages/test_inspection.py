"""What is printed of a bundle."""

from pathlib import Path
from typing import Any

import pytest

from ensemble.bundle import Bundle
from ensemble.pages.inspection import inspect_rows
from search.errors import BundleError
from tests.ensemble.pages.stories import full_evaluation, full_manifest, manifest_of

FULL = full_manifest()
METRICS: dict[str, Any] = {
    "test": full_evaluation(FULL).model_dump(mode="json"),
    "verdicts": [{"gate": "brier", "rule": "0.1 is at most 0.2", "holds": True, "details": {}}],
}


def titled(manifest: Any, metrics: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return dict(inspect_rows(Bundle(Path("b"), manifest), metrics))


def test_everything_that_a_bundle_has_is_there() -> None:
    found = titled(FULL, METRICS)
    assert list(found) == [
        *("Bundle", "Members", "Calibration", "Operating points", "When members are lost"),
        *("Cascade", "Images that do not belong", "Gates", "Test", "Test at the operating points"),
    ]
    assert found["Members"][0]["networks"] == 2
    assert found["Calibration"] == [{"calibrator": "temperature (temperature 1.300)"}]
    screen, band = found["Operating points"]
    assert (screen["status"], screen["threshold"]) == ("certified", "0.150")
    assert band["status"] == "not certified: not certifiable with n₊ = 41"
    assert band["threshold"] == "0.300 to 0.850"
    assert {"metric": "AUROC", "value": "0.900 (0.850 to 0.950)"} in found["Test"]
    assert [row["verdict"] for row in found["Gates"]] == ["holds", "overridden by force"]


def test_what_a_bundle_has_not_is_left_out() -> None:
    assert list(titled(manifest_of(["a", "b"], None), {})) == ["Bundle", "Members", "Calibration"]


def test_the_rows_of_a_table_have_the_same_keys() -> None:
    for rows in titled(FULL, METRICS).values():
        assert len({tuple(row) for row in rows}) == 1


def test_metrics_that_are_not_as_built_are_refused() -> None:
    with pytest.raises(BundleError, match=r"metrics.json: test.n_images is not as built"):
        titled(FULL, {"test": METRICS["test"] | {"n_images": "many"}})
