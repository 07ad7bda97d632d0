"""The sealed test, once: everyone on it, the gates, and all that a bundle says about itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble.assemble import THREADS, Assembled
from ensemble.bundle import MANIFEST, Bundle, hash_files
from ensemble.candidates import Candidates
from ensemble.config import EnsembleConfig
from ensemble.contenders import BEST_SINGLE, find_contenders
from ensemble.evaluation.assess import Cases, assess
from ensemble.evaluation.examples import worst_examples
from ensemble.evaluation.gates import judge
from ensemble.evaluation.leaderboard import Contender, make_leaderboard
from ensemble.evaluation.results import Evaluation, LeaderboardRow, Verdict
from ensemble.evaluation.robustness import measure_corruptions, member_contributions
from ensemble.evaluation.score import Scored, score_images
from ensemble.golden import draw_golden, write_expected
from ensemble.manifest import Manifest
from ensemble.pages.card import render_card
from ensemble.pages.report import write_report
from ensemble.pages.story import OURS, Curve, Story
from ensemble.runtime import Engine, Runtime
from search.atomic import finite, write_json, write_text
from search.config import ExperimentConfig
from search.study.records import StudyFolder

Step = Callable[[str], None]


@dataclass(frozen=True)
class Concluded:
    """What the sealed test said, and the manifest that tells of gates overridden."""

    manifest: Manifest
    evaluation: Evaluation
    leaderboard: list[LeaderboardRow]
    verdicts: list[Verdict]


def conclude(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    candidates: Candidates,
    assembled: Assembled,
    test: pd.DataFrame,
    folder: Path,
    *,
    step: Step = lambda _: None,
    notes: list[str],
) -> Concluded:
    """Golden images, every number on the test, the verdicts of the gates, metrics.json and pages.

    Args:
        test: the sealed images.
        folder: of the bundle that is being built; its manifest is not yet written.
        notes: for the report's head.
    """
    bundle = Bundle(folder, assembled.manifest)
    runtime = Runtime(bundle)
    draw_golden(folder, count=ensemble.golden)
    expected: dict[Engine, Runtime] = {"onnx": runtime, "torch": Runtime(bundle, engine="torch")}
    if ensemble.int8:
        expected["int8"] = Runtime(bundle, engine="int8")
    write_expected(folder, expected)
    step(f"evaluating on {len(test)} sealed test images")
    scored = score_images(runtime, test["path"].tolist(), threads=THREADS)
    test = test.iloc[scored.rows].reset_index(drop=True)
    evaluation, cases = _evaluate(ensemble, runtime, scored, test)
    step("comparing with the best single candidate and the recipes")
    contenders = [
        Contender(
            OURS,
            f"{len(bundle.manifest.members)} members",
            "",
            cases.probs,
            bundle.operating_point(),
        ),
        *find_contenders(config, ensemble, candidates, assembled, test, scored.scores.member_probs),
    ]
    positive = bundle.positive_index
    rows, differences = make_leaderboard(
        contenders, cases.labels, cases.groups, positive=positive, replicates=ensemble.bootstrap
    )
    evaluation = evaluation.model_copy(update={"differences": differences})
    evaluation = _robustness(ensemble, runtime, evaluation, scored, test, step)
    best = next((row.metrics for row in rows if row.who == BEST_SINGLE), None)
    verdicts = judge(ensemble.gates, evaluation, best_single=best)
    overridden = [verdict.rule for verdict in verdicts if not verdict.holds]
    manifest = bundle.manifest.model_copy(update={"gates": overridden})
    story = Story(
        title=f"{bundle.manifest.name} {bundle.manifest.version}: the sealed test",
        evaluation=evaluation,
        probs=cases.probs,
        labels=cases.labels,
        manifest=manifest,
        selection=assembled.selection,
        candidate_names=[f"{r.params.backbone}_{r.number:05d}" for r in candidates.records],
        calibrators=assembled.calibrators,
        refer_fronts=assembled.refer_fronts,
        views=assembled.views,
        leaderboard=rows,
        verdicts=verdicts,
        examples=worst_examples(cases, bundle, count=ensemble.examples),
        curves=_curves(StudyFolder(config.study_folder), bundle.manifest),
        notes=notes,
    )
    step("writing the report and the card")
    _write(folder, story, assembled, ensemble)
    return Concluded(manifest, evaluation, rows, verdicts)


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with every file's hash: the folder is a bundle now."""
    final = manifest.model_copy(update={"files": hash_files(folder)})
    (folder / MANIFEST).write_text(final.sealed_text(), encoding="utf-8")


def _evaluate(
    ensemble: EnsembleConfig, runtime: Runtime, scored: Scored, test: pd.DataFrame
) -> tuple[Evaluation, Cases]:
    cases = Cases(
        probs=runtime.pooled(scored.scores).probs,
        labels=test["label"].to_numpy(np.int64),
        groups=test["group"].to_numpy(np.int64),
        table=test,
    )
    evaluation = assess(
        runtime.bundle,
        cases,
        columns=ensemble.subgroups,
        replicates=ensemble.bootstrap,
        skipped=scored.skipped,
    )
    return evaluation, cases


def _robustness(
    ensemble: EnsembleConfig,
    runtime: Runtime,
    evaluation: Evaluation,
    scored: Scored,
    test: pd.DataFrame,
    step: Step,
) -> Evaluation:
    labels, groups = test["label"].to_numpy(np.int64), test["group"].to_numpy(np.int64)
    contributions = member_contributions(
        runtime.bundle,
        scored.scores.member_probs,
        labels,
        groups,
        replicates=ensemble.bootstrap,
    )
    update: dict[str, object] = {"contributions": contributions}
    if ensemble.corruptions:
        some = test.sample(min(ensemble.corruptions, len(test)), random_state=0)
        step(f"making {len(some)} test images worse in five ways")
        update["corruptions"] = measure_corruptions(
            runtime,
            some["path"].tolist(),
            some["label"].to_numpy(np.int64),
            some["group"].to_numpy(np.int64),
            threads=THREADS,
            replicates=ensemble.bootstrap,
        )
    return evaluation.model_copy(update=update)


def _curves(study: StudyFolder, manifest: Manifest) -> list[Curve]:
    members = {member.trial for member in manifest.members}
    return [
        Curve(f"trial {r.number} {r.recipe or r.params.backbone}", r.epochs, r.number in members)
        for r in study.records()
    ]


def _write(folder: Path, story: Story, assembled: Assembled, ensemble: EnsembleConfig) -> None:
    document = {
        "test": story.evaluation.model_dump(mode="json"),
        "leaderboard": [row.model_dump(mode="json") for row in story.leaderboard],
        "selection": assembled.selection.model_dump(mode="json"),
        "calibrators": [worth.model_dump(mode="json") for worth in assembled.calibrators],
        "refer_fronts": {
            name: [band.model_dump(mode="json") for band in front]
            for name, front in assembled.refer_fronts.items()
        },
        "views": [worth.model_dump(mode="json") for worth in assembled.views],
        "verdicts": [verdict.model_dump(mode="json") for verdict in story.verdicts],
    }
    write_json(folder / "metrics.json", finite(document))
    write_text(folder / "card.md", render_card(story, ensemble.licences))
    write_report(folder / "report.html", story)
