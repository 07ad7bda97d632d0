"""What is printed of two bundles."""

from pathlib import Path
from typing import Any

import pytest

from ensemble.bundle import Bundle
from ensemble.calibration.calibrators import Identity
from ensemble.manifest import Manifest
from ensemble.pages.difference import compare, same_test
from tests.ensemble.pages.stories import (
    full_evaluation,
    full_manifest,
    manifest_of,
    member,
    operating_point,
)

FULL = full_manifest(provenance={"splits_hash": "s1", "data_digest": "d1"}, digest="1" * 64)
METRICS: dict[str, Any] = {"test": full_evaluation(FULL).model_dump(mode="json")}


def differences(
    a: Manifest, b: Manifest, metrics: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
) -> dict[str, dict[str, tuple[Any, Any]]]:
    titled = compare(Bundle(Path("a"), a), Bundle(Path("b"), b), *metrics)
    return {title: {row["what"]: (row["a"], row["b"]) for row in rows} for title, rows in titled}


def test_a_bundle_and_its_copy_differ_in_nothing() -> None:
    assert differences(FULL, FULL) == {"Bundles": {"the same bundle": ("1" * 12, "1" * 12)}}


def test_what_differs_is_named_and_the_rest_left_out() -> None:
    other = FULL.model_copy(
        update={
            "version": "2",
            "digest": "2" * 64,
            "members": [member("cnn_0", 0.5), member("cnn_2", 0.5)],
            "calibrator": Identity(),
            "operating_points": [operating_point("screen", 0.2)],
            "prevalence": {"benign": 0.9, "malignant": 0.1},
            "cascade": None,
        }
    )
    found = differences(FULL, other)
    assert found["Bundles"]["bundle"] == ("tiny 1", "tiny 2")
    assert "data" not in found["Bundles"]
    assert list(found["Members"]) == ["cnn_0", "cnn_1", "cnn_2"]
    assert found["Members"]["cnn_2"][0] == "–"
    assert found["Calibration"]["calibrator"] == ("temperature (temperature 1.300)", "identity")
    assert found["Operating points"]["screen: threshold"] == ("0.150", "0.200")
    assert "screen: target" not in found["Operating points"]
    assert found["Operating points"]["band: threshold"] == ("0.300 to 0.850", "–")
    assert found["Classes"]["malignant"] == ("50%", "10%")
    assert found["Parts"] == {"cascade": ("down to 40% of the latency", "–")}
    assert "Test" not in found


@pytest.mark.parametrize(
    ("splits", "same", "told"),
    [
        ({"splits_hash": "s1"}, True, "the same split"),
        ({"splits_hash": "s2"}, False, "not the same split: do not compare"),
        ({}, None, "unknown"),
    ],
)
def test_it_is_said_whether_the_tests_are_the_same(
    splits: dict[str, str], same: bool | None, told: str
) -> None:
    other = FULL.model_copy(update={"provenance": splits})
    assert same_test(FULL, other) is same
    found = differences(FULL, other, (METRICS, METRICS))
    assert found["Test"]["tested on"] == (told, told)
    assert found["Test"]["AUROC"] == ("0.900 (0.850 to 0.950)",) * 2
    assert found["Test"]["screen: sensitivity"][0] == "0.960 (0.904 to 0.991)"


def test_one_that_was_not_tested_has_dashes() -> None:
    found = differences(FULL, manifest_of(["a", "b"], None), (METRICS, {}))
    assert found["Test"]["images"] == ("5", "–")
    assert "tested on" not in found["Test"]
    assert found["Classes"]["a"] == ("–", "50%")
