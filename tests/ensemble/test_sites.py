"""A small study of three sites, one of which has another camera; trained for real, without Ray."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble.config import EnsembleConfig, point_of
from ensemble.sites import plan as planning
from ensemble.sites import tasks, training
from ensemble.sites.folder import file_name, read_site, write_site
from ensemble.sites.plan import Plan, leave_out, plan_sites
from ensemble.sites.results import SiteResult
from ensemble.sites.training import best_trial
from search.config import ExperimentConfig, PolicyConfig
from search.errors import StudyError
from search.study.records import StudyFolder
from search.tables import read_table, write_table
from search.training.train import train_fold
from tests.ensemble.studies import copy_study

SITES = ("north", "south", "dark")
ENSEMBLE = EnsembleConfig(bootstrap=200)


def darken(path: Path, folder: Path) -> Path:
    """A copy of an image by a camera that sees less, and least of the blue."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), np.float64) * [0.55, 0.45, 0.35]
    target = folder / f"{path.stem}.png"
    Image.fromarray(pixels.astype(np.uint8)).save(target)
    return target


@pytest.fixture(scope="module")
def config(study: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    """The session's study with sites of its own: whole groups, some of them unknown."""
    folder = tmp_path_factory.mktemp("sites")
    copied = copy_study(study, folder)
    place = copied.study_folder / "splits.parquet"
    images = read_table(place)
    images["site"] = [SITES[group % 3] if group % 13 else None for group in images["group"]]
    for row in np.flatnonzero(images["site"] == "dark"):
        path = darken(Path(images["path"][row]), folder)
        images.loc[row, "path"] = str(path)
        images.loc[row, "digest"] = hashlib.sha256(path.read_bytes()).hexdigest()
    write_table(place, images)
    return copied


def ensemble() -> EnsembleConfig:
    point = point_of(PolicyConfig(sensitivity=0.9))
    return ENSEMBLE.model_copy(update={"operating_points": {"first": point}})


@pytest.fixture(scope="module")
def plan(config: ExperimentConfig) -> Plan:
    return plan_sites(config, ensemble(), trial=0)


@pytest.fixture(scope="module")
def found(plan: Plan) -> dict[str, SiteResult]:
    return {site: leave_out(plan, site)[0] for site in plan.column.left_out}


def test_only_open_images_are_divided(plan: Plan, config: ExperimentConfig) -> None:
    assert set(plan.images["part"]) == {"train", "calibration"}
    d = plan.division("dark")
    parts = (d.train, d.held_back, d.left_out, d.dropped)
    assert sum(map(len, parts)) == len(StudyFolder(config.study_folder).open_images())
    assert {*np.array(plan.column.sites)[d.left_out]} == {"dark"}


def test_the_best_finished_trial_is_taken(config: ExperimentConfig) -> None:
    study = StudyFolder(config.study_folder)
    values = {r.number: r.value or 0.0 for r in study.records()}
    assert best_trial(study).number == min(values, key=lambda number: values[number])
    with pytest.raises(StudyError, match=r"trial 99 is not there; finished are 0, 1, 2, 3$"):
        best_trial(study, 99)


def test_a_trial_that_failed_is_not_taken(config: ExperimentConfig, tmp_path: Path) -> None:
    study = StudyFolder(copy_study(config, tmp_path).study_folder)
    study.write_record(study.record(2).model_copy(update={"status": "failed"}))
    with pytest.raises(StudyError, match=r"trial 2 is failed; finished are 0, 1, 3$"):
        best_trial(study, 2)


def test_a_site_with_another_camera_loses_and_the_others_do_not(
    found: dict[str, SiteResult],
) -> None:
    assert set(found) == {*SITES}
    change = {site: each.difference["specificity"] for site, each in found.items()}
    assert change["dark"].high is not None
    assert change["dark"].high < -0.1  # nearly all of its images look malignant
    for site in ("north", "south"):
        assert (change[site].low or 0) < 0 < (change[site].high or 0)
    loss = {site: each.difference["nll"].value or 0.0 for site, each in found.items()}
    assert loss["dark"] > 0.1 > max(loss["north"], loss["south"])


def test_it_trains_on_the_others_for_as_long_as_the_record_says(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def spy(fold: Any, params: Any, task: Any, **options: Any) -> Any:
        seen.append((fold, task))
        return train_fold(fold, params, task, **options)

    monkeypatch.setattr(training, "train_fold", spy)
    record = plan.record.model_copy(update={"best_epoch": 1})
    leave_out(replace(plan, record=record), "north")
    ((fold, task),) = seen
    division = plan.division("north")
    expected = plan.images["label"].to_numpy()[division.train]
    assert fold.train_labels.tolist() == expected.tolist()
    assert {*fold.val_rows.tolist()} <= {*fold.train_rows.tolist()}
    assert (task.fixed_epochs, task.epochs) == (1, plan.config.fidelity.max_epochs)
    assert task.plateau_nll == tuple(epoch["nll"] for epoch in plan.record.epochs)


def test_the_probabilities_are_of_both_sides(plan: Plan) -> None:
    record = plan.record.model_copy(update={"best_epoch": 1})
    result, probs = leave_out(replace(plan, record=record), "south")
    assert probs["side"].value_counts().to_dict() == {
        "home": result.home.n,
        "away": result.away.n,
    }
    np.testing.assert_allclose(probs[list(plan.classes)].sum(axis=1), 1, atol=1e-5)
    own = plan.images.iloc[plan.division("south").left_out]["image"].tolist()
    assert probs.loc[probs["side"] == "away", "image"].tolist() == own


def test_the_same_plan_has_the_same_digest_and_another_has_another(plan: Plan) -> None:
    again = replace(plan)
    assert again.digest("north") == plan.digest("north")
    others = [
        replace(plan, record=plan.record.model_copy(update={"best_epoch": 2})),
        replace(plan, how=replace(plan.how, points={})),
        replace(plan, config=plan.config.model_copy(update={"seed": 5})),
    ]
    digests = {p.digest("north") for p in (plan, *others)} | {plan.digest("south")}
    assert len(digests) == 5


def test_a_result_of_another_plan_or_a_damaged_one_is_not_read(
    found: dict[str, SiteResult], tmp_path: Path, plan: Plan
) -> None:
    write_site(tmp_path, found["north"], plan.images[["image"]])
    digest = found["north"].digest
    assert read_site(tmp_path, "north", digest) == found["north"]
    assert read_site(tmp_path, "north", "0" * 64) is None
    (tmp_path / "north.json").write_text("{")
    assert read_site(tmp_path, "north", digest) is None
    assert read_site(tmp_path, "south", digest) is None


def test_a_rerun_does_only_what_is_missing(
    plan: Plan, found: dict[str, SiteResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without Ray, which a rerun with nothing to do does not need."""
    for result in found.values():
        write_site(tmp_path / "sites", result, plan.images[["image"]])
    heard: list[tuple[int, int]] = []
    whole = tasks.evaluate_sites(plan, tmp_path, progress=lambda *told: heard.append(told))
    assert heard == [(3, 3)]
    assert [s.site for s in whole.sites] == ["dark", "north", "south"]
    asked: list[str] = []
    monkeypatch.setattr(tasks, "_train_all", lambda _, sites, keep: asked.extend(sites))
    (tmp_path / "sites" / f"{file_name('south')}.json").unlink()
    with pytest.raises(KeyError, match=r"south"):  # for the fake has made nothing
        tasks.evaluate_sites(plan, tmp_path)
    assert asked == ["south"]


def test_the_whole_names_the_mean_and_the_worst(plan: Plan, found: dict[str, SiteResult]) -> None:
    whole = tasks.conclude(plan, list(found.values()))
    losses = {site: each.away.metrics["nll"].value or 0.0 for site, each in found.items()}
    assert whole.worst["nll"].site == "dark" == max(losses, key=lambda site: losses[site])
    assert whole.mean["nll"].value == pytest.approx(sum(losses.values()) / 3)
    assert whole.n_unknown == sum(site == "unknown" for site in plan.column.sites) > 0
    assert sum(whole.held.values()) == 3
    assert whole.promise == "sensitivity at least 0.9, then most specificity"


def test_sites_without_enough_others_are_kept_and_told(
    config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_sites(config, ensemble(), trial=0)
    dark = plan.division("dark").left_out.tolist()

    def problem(division: Any, *_: Any, **__: Any) -> str | None:
        return "too few" if division.left_out.tolist() == dark else None

    monkeypatch.setattr(planning, "division_problem", problem)
    column = replace(plan).column
    assert list(column.left_out) == ["north", "south"]
    assert column.kept == {"dark": "too few"}


def test_where_no_site_can_be_left_out_it_is_said(
    config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "division_problem", lambda *_, **__: "none")
    with pytest.raises(
        StudyError, match=r"^no site of column site can be left out: without dark, none;"
    ):
        plan_sites(config, ensemble(), trial=0)
