"""Real dermoscopy images: the audit's counts, and the whole path.

Skipped by name where `../shared/data` is absent.
"""

from pathlib import Path

import pytest

from cluster.connect import connected
from ensemble.build import build_ensemble
from ensemble.config import EnsembleConfig, point_of
from ensemble.golden import check_golden
from ensemble.runtime import Runtime
from ensemble.selection.results import Budget
from search.config import AuditConfig, DatasetConfig, ExperimentConfig, load_config
from search.data.audit import Audit, audit_dataset
from search.data.dataset import load_dataset
from search.data.facts import gather_facts
from search.study.records import StudyFolder
from search.study.run import run_study
from search.tables import read_table

PROJECT = Path(__file__).parent.parent
DATA = PROJECT.parent / "shared" / "data"
needs_isic = pytest.mark.skipif(not (DATA / "isic2357").is_dir(), reason="no shared/data/isic2357")
needs_ham = pytest.mark.skipif(not (DATA / "ham10000").is_dir(), reason="no shared/data/ham10000")


def the_audit(config: DatasetConfig) -> Audit:
    dataset = load_dataset(config)
    facts = gather_facts(dataset.table["path"].tolist())
    settings = AuditConfig()
    return audit_dataset(dataset.table, facts, settings, classes=dataset.classes, given_split=False)


@needs_isic
@pytest.mark.parametrize("source", ["folder", "table"])
def test_isic2357_has_159_groups_of_copies_155_of_them_under_two_labels(source: str) -> None:
    if source == "folder":
        config = DatasetConfig.model_validate(
            {"sources": [{"folder": "isic2357"}]}, context={"folder": DATA}
        )
    else:
        config = load_config(PROJECT / "configs" / "isic2357.yaml").dataset
    counts = the_audit(config).counts
    assert counts["duplicates"]["by_file"] == 159
    assert counts["label_conflicts"]["groups"] == 155
    assert counts["leaks"]["image_id"] == 18


def shortened(name: str, folder: Path, **changes: object) -> ExperimentConfig:
    """An experiment of configs/ with its output elsewhere and less to do."""
    config = load_config(PROJECT / "configs" / f"{name}.yaml")
    nested = {key: value for key, value in changes.items() if isinstance(value, dict)}
    update = {key: getattr(config, key).model_copy(update=nested[key]) for key in nested}
    return config.model_copy(update={"output": folder, **update})


@needs_isic
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_isic2357_from_images_to_an_ensemble_that_tells_melanomas(tmp_path: Path) -> None:
    config = shortened(
        "isic2357",
        tmp_path,
        budget={"trials": 3},
        fidelity={"max_epochs": 3, "finalists": 1},
        portfolio={"recipes": ["mobilenetv2"]},
    )
    with connected():
        run_study(config)
    built = build_ensemble(
        config,
        EnsembleConfig(
            operating_points={"high": point_of(config.policy)}, budget=Budget(members=1)
        ),
    )
    found = built.evaluation.metrics["auroc"]
    assert found.value is not None
    assert found.value > 0.8
    test = read_table(config.study_folder / "sealed" / "test.parquet")
    seen = StudyFolder(config.study_folder).open_images()
    assert not set(test["digest"]) & set(seen["digest"])
    assert not set(test["lesion"].dropna()) & set(seen["lesion"].dropna())
    check_golden(Runtime(built.bundle))


@needs_ham
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ham10000_passes_audit_splits_cache_and_a_two_trial_search(tmp_path: Path) -> None:
    config = shortened(
        "ham10000",
        tmp_path,
        budget={"trials": 2},
        fidelity={"max_epochs": 1, "grace": 1, "finalists": 0},
    )
    with connected():
        study = run_study(config)
    assert [record.status for record in study.records()] == ["complete"] * 2
    images = study.open_images()
    assert set(images["label"]) == set(range(7))
    assert (images.groupby("lesion")["part"].nunique() == 1).all()
    assert (images.groupby("lesion")["fold"].nunique() == 1).all()
