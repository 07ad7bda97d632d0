"""From a study to a bundle: select, assemble, evaluate once, judge, write."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ensemble.assemble import assemble
from ensemble.bundle import Bundle, building, load_bundle
from ensemble.candidates import Candidates, load_candidates
from ensemble.conclude import Concluded, conclude, seal
from ensemble.config import EnsembleConfig
from ensemble.costs import measured_costs
from ensemble.evaluation.gates import check_gates
from ensemble.evaluation.results import Evaluation, LeaderboardRow, Verdict
from ensemble.evaluation.subgroups import usable_columns
from ensemble.evaluation.table import MetricTable
from ensemble.selection.nested import select_members
from search.config import ExperimentConfig
from search.errors import GateError, StudyError
from search.study.identity import refuse_other
from search.study.records import StudyFolder
from search.study.sealed import count_openings, open_sealed_test

Step = Callable[[str], None]
PAGES = ("report.html", "card.md", "metrics.json")


@dataclass(frozen=True)
class Built:
    """A finished bundle and the numbers beside it."""

    bundle: Bundle
    evaluation: Evaluation
    leaderboard: list[LeaderboardRow]
    verdicts: list[Verdict]


def build_ensemble(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    *,
    force: bool = False,
    step: Step = lambda _: None,
) -> Built:
    """Turn a study into one bundle; the sealed test is opened once, at the end.

    Args:
        force: write the bundle though a gate failed; the bundle says so.

    Raises:
        StudyError: no study, fewer than two candidates, or nothing to calibrate on.
        BundleError: a member's ONNX graph is not what torch computes.
        GateError: a gate failed; the pages lie in refused/ beside where the bundle would be.
    """
    study = StudyFolder(config.study_folder)
    refuse_other(config, study)
    candidates = load_candidates(study)
    _refuse_one(candidates, ensemble, study)
    _check_test_can_be_judged(ensemble, candidates, study)
    step(f"selecting from {len(candidates.records)} candidates")
    selection = select_members(
        candidates.oof_probs,
        candidates.labels,
        candidates.groups,
        costs=measured_costs(config, ensemble, candidates),
        budget=ensemble.budget,
        seed=config.seed,
    )
    with building(config.bundle_folder) as folder:
        assembled = assemble(config, ensemble, candidates, selection, folder, step=step)
        manifest = assembled.manifest
        test = open_sealed_test(study, purpose=f"bundle {manifest.name} {manifest.version}")
        openings = count_openings(study)
        provenance = manifest.provenance | {"test_openings": openings}
        assembled = replace(
            assembled, manifest=manifest.model_copy(update={"provenance": provenance})
        )
        notes = [_opened(openings)]
        concluded = conclude(
            config, ensemble, candidates, assembled, test, folder, step=step, notes=notes
        )
        if not force:
            _refuse_failed(concluded, folder, config.output / "refused")
        seal(folder, concluded.manifest)
    shutil.rmtree(config.output / "refused", ignore_errors=True)
    bundle = load_bundle(config.bundle_folder)
    return Built(bundle, concluded.evaluation, concluded.leaderboard, concluded.verdicts)


def _refuse_one(candidates: Candidates, ensemble: EnsembleConfig, study: StudyFolder) -> None:
    if len(candidates.records) == 1 and ensemble.budget.members != 1:
        raise StudyError(
            f"{study.path}: one candidate only, and an ensemble needs two; search more trials "
            "(--trials +10), or set ensemble.budget.members to 1 to ship it alone"
        )


def _check_test_can_be_judged(
    ensemble: EnsembleConfig, candidates: Candidates, study: StudyFolder
) -> None:
    """Find what would stop the evaluation before the sealed test is opened for it."""
    usable_columns(study.open_images(), ensemble.subgroups)
    head = study.head()
    positive = None if head.positive is None else head.classes.index(head.positive)
    names = MetricTable(candidates.oof_probs[0], candidates.labels, positive=positive).names
    has_points = positive is not None and bool(ensemble.operating_points)
    check_gates(ensemble.gates, set(names), has_points=has_points)


def _opened(times: int) -> str:
    if times == 1:
        return "The sealed test was opened once, for this page."
    return f"The sealed test has been opened {times} times; numbers of the first count most."


def _refuse_failed(concluded: Concluded, folder: Path, refused: Path) -> None:
    """Keep the pages of a bundle that a gate keeps back, and say which."""
    failed = [verdict for verdict in concluded.verdicts if not verdict.holds]
    if not failed:
        return
    refused.mkdir(parents=True, exist_ok=True)
    for name in PAGES:
        shutil.copyfile(folder / name, refused / name)
    raise GateError(
        f"no new bundle: {len(failed)} of {len(concluded.verdicts)} gates failed, the first: "
        f"{failed[0].rule}; see {refused / 'report.html'}, or say --force and the bundle "
        "records it"
    )
