"""Steps are taken once, again where their inputs changed, and what is served changes by rule."""

import json
import os
import shutil
from pathlib import Path

import pytest

from ensemble.bundle import load_bundle
from search.errors import GateError, StudyError
from search.study.records import TrialRecord
from serving.scoring.compare import Counts
from tests.cluster.pipeline.fakes import FakeAdmin
from tests.cluster.pipeline.site import Site
from tests.serving.bundles import rebuilt

ENOUGH = Counts(agreements=200)
SERVICE = {"service": "http://fake:8000"}


ALL_SKIPPED = dict.fromkeys(("search", "ensemble", "evaluate", "gate", "canary"), "skipped")
MADE = {"search": "done", "ensemble": "done", "evaluate": "skipped", "gate": "done"}


def test_a_first_bundle_ends_after_the_gate_and_then_all_is_skipped(site: Site) -> None:
    report = site.take()
    assert {row.step: row.status for row in report.rows} == MADE | {"canary": "skipped"}
    assert report.rows[3].why == "the first bundle: nothing to compare with"
    assert report.rows[4].why == "pipeline.service names no service"
    assert site.statuses() == ALL_SKIPPED
    assert site.calls == []


def test_a_changed_ensemble_is_built_again_from_the_same_study(site: Site) -> None:
    site.take()
    site.write(ensemble={**site.document["ensemble"], "golden": 3})
    assert site.statuses()["ensemble"] == "done"
    assert site.calls == ["build"]
    assert "ensemble: again, for it changed: config" in site.clock.said


def test_a_larger_budget_does_all_again(site: Site, material: Path) -> None:
    site.take()
    site.variants = [material / "old"]
    site.write(budget={"trials": 5})
    assert site.statuses() == MADE | {"canary": "skipped"}
    assert site.calls == ["search", "build"]


def test_a_touched_image_is_looked_at_and_the_same_study_makes_no_other_bundle(site: Site) -> None:
    site.take()
    os.utime(next((site.folder / "data" / "images").iterdir()), (1, 1))
    assert site.statuses()["ensemble"] == "skipped"
    assert site.calls == ["search"]


def test_trials_that_somebody_added_by_hand_make_a_new_bundle(site: Site) -> None:
    site.take()
    record = site.study.record(0)
    site.study.write_record(TrialRecord.model_validate(record.model_dump() | {"number": 9}))
    site.take()
    assert site.calls == ["build"]


def test_so_many_more_trials_are_searched_each_time_they_are_asked_for(site: Site) -> None:
    for _ in range(2):
        site.take("search", "+4")
        assert site.calls == ["search"]


def test_what_says_only_where_it_is_done_changes_nothing(site: Site) -> None:
    site.take()
    site.write(resources={"cpu": 2}, pipeline={"releases": "elsewhere"})
    assert site.statuses() == ALL_SKIPPED


@pytest.mark.parametrize(("gone", "again"), [("bundle", ["build"]), ("study", ["search"])])
def test_a_product_that_is_gone_is_made_again(site: Site, gone: str, again: list[str]) -> None:
    site.take()
    shutil.rmtree(site.out / gone)
    site.take()
    assert site.calls == again


def test_it_ends_after_the_step_that_is_named(site: Site) -> None:
    assert list(site.statuses("ensemble")) == ["search", "ensemble"]


def test_other_sets_are_evaluated_once(site: Site) -> None:
    (site.folder / "other.yaml").write_text(site.config.read_text())
    site.write(pipeline={"evaluate": ["other.yaml"]})
    row = site.take("evaluate").rows[-1]
    assert (row.status, row.why) == ("done", "tiny: nll 0.500 auroc 0.900")
    assert site.statuses("evaluate")["evaluate"] == "skipped"
    (site.out / "evaluations" / "tiny" / "evaluation.json").unlink()
    assert site.statuses("evaluate")["evaluate"] == "done"


def test_two_sets_of_one_name_are_refused(site: Site) -> None:
    for name in ("one.yaml", "two.yaml"):
        (site.folder / name).write_text(site.config.read_text())
    site.write(pipeline={"evaluate": ["one.yaml", "two.yaml"]})
    assert "pipeline.evaluate has 'tiny' twice; rename" in str(site.take().error)


def test_a_better_bundle_is_released_and_promoted(served: Site) -> None:
    report = served.take()
    assert report.error is None
    assert report.rows[4].why.startswith("promoted: 0 of 200 compared images decided otherwise")
    assert served.admin is not None
    release = served.out / "releases" / served.admin.wanted.serving
    assert (
        load_bundle(release).manifest.digest == load_bundle(served.out / "bundle").manifest.digest
    )
    assert served.statuses() == ALL_SKIPPED
    assert served.openings == 1


def test_the_next_bundle_is_compared_with_the_release_that_serves(
    served: Site, material: Path
) -> None:
    served.take()
    served.variants = [rebuilt(served.folder / "v3", material / "new", version="3")]
    served.write(budget={"trials": 5})
    report = served.take()
    assert [row.status for row in report.rows] == ["done", "done", "skipped", "done", "done"]
    assert report.rows[3].outcome["serving"] == load_bundle(material / "new").manifest.digest


def test_a_worse_bundle_is_refused_with_the_figures_and_nothing_is_deployed(
    served: Site, material: Path
) -> None:
    served.variants = [material / "bad"]
    report = served.take()
    assert isinstance(report.error, GateError)
    assert report.rows[-1].step == "gate"
    rule = report.rows[-1].outcome["rules"][0]
    assert (rule["metric"], rule["holds"]) == ("nll", False)
    assert rule["bound"] > rule["worse"] > 0.01
    assert f"at worst {rule['bound']:+.4f} with 95% confidence, over the margin of 0.01" in str(
        report.error
    )
    assert served.admin is not None
    assert served.admin.puts == []
    assert not (served.out / "releases").exists()


def test_a_refused_bundle_stays_refused_without_opening_the_seal_again(
    served: Site, material: Path
) -> None:
    served.variants = [material / "bad"]
    served.take()
    report = served.take()
    assert isinstance(report.error, GateError)
    assert "it came to this before, and nothing has changed" in report.rows[-1].why
    assert served.openings == 1
    served.write(pipeline={**SERVICE, "gate": [{"metric": "nll", "margin": 9}]})
    assert served.take().error is None
    assert served.openings == 2


def test_a_bundle_that_cannot_be_seen_from_here_is_named_by_against(
    served: Site, material: Path, tmp_path: Path
) -> None:
    digest = load_bundle(material / "old").manifest.digest
    served.admin = FakeAdmin(tmp_path / "elsewhere", [ENOUGH], digest=digest)
    assert "name a copy of it as pipeline.against" in str(served.take().error)
    served.write(pipeline={**SERVICE, "against": str(material / "old")})
    assert served.take().error is None


def test_against_counts_where_there_is_no_service(site: Site, material: Path) -> None:
    site.variants = [material / "bad"]
    site.write(pipeline={"against": str(material / "old")})
    assert isinstance(site.take().error, GateError)


def kill_while_watching(site: Site) -> FakeAdmin:
    """End the pipeline while its canary stands."""
    admin, looks = site.admin, iter(range(6))
    assert admin is not None
    admin.counts = [Counts(agreements=1)]

    def die() -> None:
        if next(looks, None) is None:
            raise KeyboardInterrupt

    admin.on_look = die
    with pytest.raises(KeyboardInterrupt):
        site.take()
    assert admin.wanted.canary is not None
    admin.on_look = lambda: None
    return admin


def begun(site: Site) -> str:
    """When the canary was put up, as it is written down."""
    step = json.loads((site.out / "pipeline.json").read_text())["steps"]["canary"]
    return str(step["begun"])


def test_who_was_killed_with_a_canary_standing_goes_on(served: Site) -> None:
    admin = kill_while_watching(served)
    before, admin.counts = begun(served), [ENOUGH]
    assert served.statuses()["canary"] == "done"
    assert served.calls == []
    assert len(admin.puts) == 1
    assert begun(served) == before


def test_a_canary_without_visitors_is_tried_again_and_one_that_disagreed_is_not(
    served: Site,
) -> None:
    assert served.admin is not None
    served.admin.counts = [Counts(agreements=1)]
    assert "in 60 minutes, 200 are asked for" in str(served.take().error)
    served.admin.counts = [Counts(agreements=100, disagreements=100)]
    assert "100 of 200 compared images decided otherwise" in str(served.take().error)
    served.admin.counts = [ENOUGH]
    assert "it came to this before" in str(served.take().error)
    assert len(served.admin.puts) == 4  # up and back, twice


def test_an_earlier_bundles_canary_is_put_right_before_the_next_gate(
    served: Site, material: Path
) -> None:
    admin = kill_while_watching(served)
    served.variants = [material / "bad"]
    served.write(budget={"trials": 5})
    assert isinstance(served.take().error, GateError)
    assert admin.wanted.canary is None


def test_a_damaged_state_is_one_line_and_nothing_is_done(site: Site) -> None:
    site.take()
    (site.out / "pipeline.json").write_text("{")
    with pytest.raises(StudyError, match=r"pipeline.json: damaged; take it away, and what"):
        site.take()
    (site.out / "pipeline.json").write_text('{"schema_version": 2}')
    with pytest.raises(StudyError, match=r"schema 2 is newer than known here; update consilium"):
        site.take()
    (site.out / "pipeline.json").write_text('{"schema_version": 1, "steps": {"search": 3}}')
    with pytest.raises(StudyError, match=r"damaged"):
        site.take()
    assert site.calls == []


def test_two_pipelines_of_one_experiment_do_not_mix(site: Site) -> None:
    from cluster.pipeline.state import one_pipeline

    with one_pipeline(site.out), pytest.raises(StudyError, match=r"another pipeline works on"):
        site.take()
