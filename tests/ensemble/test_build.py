"""From a study to a bundle, without Ray: what is written, what is refused, what is recorded."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ensemble.build import Built, build_ensemble
from ensemble.bundle import load_bundle
from ensemble.config import EnsembleConfig, GateConfig
from ensemble.decision.points import PointConfig, ReferConfig
from ensemble.golden import check_golden
from ensemble.runtime import Runtime
from ensemble.selection.results import Budget
from search.config import ExperimentConfig
from search.errors import GateError, StudyError
from search.study.records import StudyFolder
from search.study.sealed import count_openings
from tests.ensemble.studies import copy_study
from tests.pages import Reader

POINTS = {
    "screening": PointConfig(sensitivity=0.9),
    "expected": PointConfig(false_negative_rate=0.2),
    "cost": PointConfig(cost_ratio=10),
    "band": PointConfig(refer=ReferConfig(share=0.4, sensitivity=0.9)),
}
QUICK = EnsembleConfig(
    budget=Budget(members=2),
    operating_points=POINTS,
    test_time_augmentation="none",
    corruptions=4,
    bootstrap=100,
    examples=2,
    golden=2,
)


def quick(**changes: object) -> EnsembleConfig:
    return QUICK.model_copy(update=changes)


@pytest.fixture(scope="module")
def built(study: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Built:
    config = copy_study(study, tmp_path_factory.mktemp("built"))
    return build_ensemble(config, QUICK)


@pytest.fixture(scope="module")
def four(multiclass_study: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Built:
    config = copy_study(multiclass_study, tmp_path_factory.mktemp("four"))
    return build_ensemble(config, quick(test_time_augmentation="auto", int8=True))


def test_every_operating_point_says_whether_it_is_certified(built: Built) -> None:
    points = {point.name: point for point in built.bundle.manifest.operating_points}
    assert list(points) == list(POINTS)
    assert not points["screening"].certified
    assert re.match(r"not certifiable with n₊ = \d+: 36 positives", points["screening"].reason)
    assert points["band"].refer_from is not None
    assert points["band"].refer_from <= points["band"].threshold


def test_members_have_a_network_a_fold(built: Built) -> None:
    for member in built.bundle.manifest.members:
        assert [network.fold for network in member.networks] == [0, 1, 2]
        assert member.latency_ms > 0


def test_both_engines_give_the_golden_probabilities(built: Built) -> None:
    assert check_golden(Runtime(built.bundle), "onnx") <= 1e-4
    assert check_golden(Runtime(built.bundle, engine="torch"), "torch") <= 1e-5


def test_the_metrics_file_holds_every_interval_and_difference(built: Built) -> None:
    found = json.loads((built.bundle.folder / "metrics.json").read_text())
    auroc = found["test"]["metrics"]["auroc"]
    assert auroc["low"] <= auroc["value"] <= auroc["high"]
    against = [row["against"] for row in found["test"]["differences"]]
    assert against == ["best single, calibrated", "recipe custom_cnn"]
    kinds = {(row["kind"], row["severity"]) for row in found["test"]["corruptions"]}
    assert len(kinds) == 26
    assert {choice["choice"] for choice in found["selection"]["choices"]} >= {"greedy", "all"}


def test_the_pages_are_there_and_load_nothing(built: Built) -> None:
    page = Reader((built.bundle.folder / "report.html").read_text())
    loaded = [tag.get("src") or tag.get("href") for _, tag in page.tags]
    assert not [place for place in loaded if place and not place.startswith(("#", "data:"))]
    assert "Choosing the members" in page.text or "selection" in page.sections
    assert "not a medical device" in (built.bundle.folder / "card.md").read_text()


def test_images_that_are_no_lesions_are_measured(built: Built) -> None:
    novelty = built.bundle.manifest.out_of_distribution
    assert novelty is not None
    assert {"noise", "text", "photographs"} <= {kind.kind for kind in novelty.measured}
    assert novelty.flagged_held_back <= 0.02


def test_several_classes_certify_on_cases_that_did_not_calibrate(four: Built) -> None:
    points = four.bundle.manifest.operating_points
    held_back = four.bundle.manifest.provenance["n_images"]["calibration"]
    assert points[0].n_positive + points[0].n_negative <= 0.7 * held_back
    assert four.evaluation.positive == "melanoma"


def test_eight_bit_members_come_with_their_loss(four: Built) -> None:
    networks = [n for member in four.bundle.manifest.members for n in member.networks]
    assert all(network.int8_off is not None for network in networks)
    check_golden(Runtime(four.bundle, engine="int8"), "int8")


def test_a_failed_gate_keeps_the_bundle_back_and_leaves_its_pages(
    study: ExperimentConfig, tmp_path: Path
) -> None:
    config = copy_study(study, tmp_path)
    ensemble = quick(gates=[GateConfig(metric="nll", at_most=0.001)], corruptions=0)
    with pytest.raises(GateError, match=r"no new bundle: 1 of 1 gates failed, the first: .*nll"):
        build_ensemble(config, ensemble)
    assert not config.bundle_folder.exists()
    assert {p.name for p in (config.output / "refused").iterdir()} == {
        "report.html",
        "card.md",
        "metrics.json",
    }
    forced = build_ensemble(config, ensemble, force=True)
    assert len(forced.bundle.manifest.gates) == 1
    assert not (config.output / "refused").exists()
    assert count_openings(StudyFolder(config.study_folder)) == 2


def test_a_refitted_member_has_one_network_and_says_what_it_cost(
    study: ExperimentConfig, tmp_path: Path
) -> None:
    config = copy_study(study, tmp_path)
    built = build_ensemble(config, quick(refit=True, corruptions=0, out_of_distribution=None))
    for member in built.bundle.manifest.members:
        (network,) = member.networks
        assert network.fold is None
        assert network.refit_seconds is not None
    assert load_bundle(built.bundle.folder).manifest.out_of_distribution is None


def test_an_ensemble_of_one_candidate_is_refused(study: ExperimentConfig, tmp_path: Path) -> None:
    config = copy_study(study, tmp_path)
    folder = StudyFolder(config.study_folder)
    for record in folder.records()[1:]:
        folder.drop_weights(record.number)
    with pytest.raises(StudyError, match=r"one candidate only, and an ensemble needs two"):
        build_ensemble(config, QUICK)


def test_probabilities_that_are_no_numbers_are_refused(
    study: ExperimentConfig, tmp_path: Path
) -> None:
    config = copy_study(study, tmp_path)
    folder = StudyFolder(config.study_folder)
    table = folder.probs(1)
    classes = folder.head().classes
    probs = table[classes].to_numpy(np.float32, copy=True)
    probs[3] = np.nan
    folder.write_probs(1, table["image"].tolist(), probs, classes)
    with pytest.raises(StudyError, match=r"probs.parquet"):
        build_ensemble(config, QUICK)
