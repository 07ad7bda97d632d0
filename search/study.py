"""A study on Ray Tune: Optuna samples, ASHA stops, the folder remembers. The only Tune file."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import ray
import yaml
from optuna.trial import FrozenTrial
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler

from search.atomic import write_text
from search.backbones import build_classifier, preprocessing_of
from search.config import ExperimentConfig
from search.errors import StudyError
from search.intake import Progress, take_in
from search.params import Params
from search.portfolio import load_portfolio
from search.records import Status, StudyFolder, TrialRecord
from search.searcher import OptunaSearcher, count_done, open_optuna_study
from search.train import LOWER_IS_BETTER, Epoch
from search.trial import Trial, open_fold_images, train_trial

STATUS: dict[str, Status] = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
# What may change between a search and its rerun: how much, where and on what, not what.
FREE = {"output", "cache", "budget", "resources", "ensemble"}
Ended = Callable[[TrialRecord, int], None]  # a record, and how many trials are done


def run_study(
    config: ExperimentConfig,
    *,
    progress: Progress = lambda *_: None,
    ended: Ended = lambda *_: None,
) -> StudyFolder:
    """Search until the budget's trials are done; a rerun goes on where the last one stopped.

    Ray must be running. The data are taken in first, where this has not happened yet.

    Args:
        progress: hears of the long steps before the first trial.
        ended: hears of each trial's end.

    Raises:
        StudyError: the folder holds another experiment's study, or no trial could finish.
    """
    folder = StudyFolder(config.study_folder)
    if not (folder.path / "study.json").exists():
        _begin(config, folder, progress)
    _refuse_other(config, folder)
    n_classes = len(folder.head().classes)
    recipes = load_portfolio(config.portfolio, n_classes=n_classes)
    _check_recipes(config, recipes, n_classes)
    study = open_optuna_study(
        folder.storage_url,
        config.name,
        direction="minimize" if config.objective in LOWER_IS_BETTER else "maximize",
        seed=config.seed,
        recipes=recipes,
        space=config.space,
    )
    remaining = config.budget.trials - count_done(study)
    if remaining > 0:
        _warm_caches(config, recipes.values(), progress)
        _tune(config, folder, study, remaining, ended)
    if not any(record.status == "complete" for record in folder.records()):
        reasons = [record.error for record in folder.records() if record.error]
        raise StudyError(
            f"{folder.path}: no trial finished ({reasons[0] if reasons else 'no trial ran'}); "
            "mend the config and search into another output folder"
        )
    return folder


def _begin(config: ExperimentConfig, folder: StudyFolder, progress: Progress) -> None:
    head = take_in(config, folder, progress)
    document = config.model_dump(mode="json", exclude_none=True)
    write_text(folder.path / "config.yaml", yaml.safe_dump(document, sort_keys=False))
    folder.write_head(head)


def _refuse_other(config: ExperimentConfig, folder: StudyFolder) -> None:
    """Refuse to mix two experiments in one folder, and name what differs."""
    head = folder.head()
    stored = yaml.safe_load((folder.path / "config.yaml").read_text(encoding="utf-8"))
    given = config.model_dump(mode="json", exclude_none=True)
    differ = [k for k in {**stored, **given} if k not in FREE and stored.get(k) != given.get(k)]
    if differ:
        key = differ[0]
        raise StudyError(
            f"{folder.path}: holds study {head.name!r} with another {key} "
            f"({_short(stored.get(key))}, now {_short(given.get(key))}); "
            "choose another output folder, or take the old one away"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _check_recipes(config: ExperimentConfig, recipes: dict[str, Params], n_classes: int) -> None:
    """Build each recipe's classifier once, so that a missing weights file stops the study now."""
    for params in recipes.values():
        build_classifier(params, n_classes, config.weights)


def _warm_caches(config: ExperimentConfig, recipes: Iterable[Params], progress: Progress) -> None:
    """Decode the recipes' images before the first trial; other sizes follow when asked for."""
    for params in {preprocessing_of(p).size: p for p in recipes}.values():
        what = f"decode at {params.image_size} pixels"
        open_fold_images(config, params, threads=2, progress=partial(progress, what))


def _tune(
    config: ExperimentConfig,
    folder: StudyFolder,
    study: optuna.Study,
    remaining: int,
    ended: Ended,
) -> None:
    minimise = config.objective in LOWER_IS_BETTER
    mode = "min" if minimise else "max"
    before = count_done(study)

    def settle(frozen: FrozenTrial) -> None:
        record = _settled_record(folder, frozen)
        folder.write_record(record)
        _collect_weights(folder, config.budget.keep_weights, minimise=minimise)
        ended(record, count_done(study))

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # whose banner verbose=0 does not silence
    slots = _slots(config)
    scratch = Path(tempfile.mkdtemp(prefix="consilium-tune-"))
    try:
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trainable, config=config),
                {"cpu": config.resources.cpu, "gpu": config.resources.gpu},
            ),
            tune_config=tune.TuneConfig(
                search_alg=OptunaSearcher(study, config.space, mode=mode, ended=settle),
                scheduler=AsyncHyperBandScheduler(
                    time_attr="epoch",
                    metric="objective",
                    mode=mode,
                    max_t=config.fidelity.max_epochs,
                    grace_period=min(config.fidelity.grace, config.fidelity.max_epochs),
                    reduction_factor=config.fidelity.reduction,
                ),
                num_samples=remaining,
                max_concurrent_trials=slots,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(name=config.name, storage_path=str(scratch), verbose=0),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if count_done(study) < before + remaining:
        # Tune takes the first Ctrl-C for itself and ends its loop as if all were done.
        raise KeyboardInterrupt


def _trainable(settings: dict[str, Any], *, config: ExperimentConfig) -> None:
    """One trial inside a Tune worker."""
    trial = Trial(
        number=settings["number"],
        params=Params.model_validate(settings["params"]),
        recipe=settings["recipe"],
    )

    def report(epoch: Epoch) -> None:
        tune.report(
            {
                "epoch": epoch.number,
                "objective": epoch.value,
                "best": epoch.best_value,
                "last": epoch.last,
            }
        )

    train_trial(config, trial, report=report, threads=config.resources.cpu)


def _settled_record(folder: StudyFolder, frozen: FrozenTrial) -> TrialRecord:
    """The trial's own record with the status it ended in; a bare one if it never wrote any."""
    status = STATUS[frozen.state.name]
    try:
        record = folder.record(frozen.number)
    except FileNotFoundError:
        params = frozen.user_attrs.get("params", {})
        record = TrialRecord(
            number=frozen.number,
            status=status,
            recipe=frozen.user_attrs.get("recipe"),
            params=Params.model_validate(params),
            fold=0,
        )
    error = record.error or ("the worker died" if status == "failed" else None)
    return record.model_copy(update={"status": status, "error": error})


def _collect_weights(folder: StudyFolder, keep: int, *, minimise: bool) -> None:
    """Keep weights of the best trials and of the recipes, which stand beside the ensemble."""
    records = [r for r in folder.records() if r.status != "running"]
    ranked = sorted(
        (r for r in records if r.value is not None and r.status != "failed"),
        key=lambda r: (r.value or 0.0) * (1 if minimise else -1),
    )
    kept = {r.number for r in ranked[:keep]} | {r.number for r in ranked if r.recipe}
    for record in records:
        if record.number not in kept:
            folder.drop_weights(record.number)


def _slots(config: ExperimentConfig) -> int:
    """How many trials fit on the cluster at once.

    Raises:
        StudyError: not even one does.
    """
    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus = have.get("CPU", 0) // config.resources.cpu
    gpus = have.get("GPU", 0) / config.resources.gpu if config.resources.gpu else cpus
    slots = int(min(cpus, gpus))
    if slots < 1:
        raise StudyError(
            f"a trial needs {config.resources.cpu} CPUs and {config.resources.gpu:g} GPUs, Ray has "
            f"{have.get('CPU', 0):g} and {have.get('GPU', 0):g}; lower resources in the config"
        )
    return slots
