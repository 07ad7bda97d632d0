"""A study on Ray Tune: Optuna samples, ASHA stops, the folder remembers. The only Tune file."""

import logging
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
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler

from search.atomic import write_text
from search.backbones import build_classifier, preprocessing_of
from search.config import ExperimentConfig
from search.errors import StudyError
from search.identity import refuse_other
from search.intake import Progress, take_in
from search.losses import build_loss
from search.objectives import minimised
from search.params import Params
from search.portfolio import load_portfolio
from search.records import StudyFolder, TrialRecord
from search.searcher import OptunaSearcher, count_done, open_optuna_study
from search.settle import collect_weights, settle_leftovers, settle_trial
from search.train import Epoch
from search.trial import Trial, open_fold_images, train_trial

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
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.path / "lock", timeout=0):
            return _run(config, folder, progress, ended)
    except Timeout as error:
        raise StudyError(
            f"{folder.path}: another search works on this study; wait for it or stop it"
        ) from error


def _run(
    config: ExperimentConfig, folder: StudyFolder, progress: Progress, ended: Ended
) -> StudyFolder:
    if not (folder.path / "study.json").exists():
        _begin(config, folder, progress)
    refuse_other(config, folder)
    n_classes = len(folder.head().classes)
    recipes = load_portfolio(config.portfolio, n_classes=n_classes)
    _check_trials(config, recipes, n_classes)
    study = open_optuna_study(
        folder.storage_url,
        config.name,
        direction="minimize" if minimised(config.objectives[0]) else "maximize",
        seed=config.seed,
        recipes=recipes,
        space=config.space,
    )
    settle_leftovers(folder, study)
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


def _check_trials(config: ExperimentConfig, recipes: dict[str, Params], n_classes: int) -> None:
    """Build what the recipes and the space ask for once: what is missing stops the study now."""
    for params in {*recipes.values(), *config.space.corners()}:
        build_classifier(params, n_classes, config.weights)
        build_loss(params, None, n_classes)


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
    minimise = minimised(config.objectives[0])
    mode = "min" if minimise else "max"
    before = count_done(study)
    told = {record.number for record in folder.records() if record.again}

    def settle(frozen: FrozenTrial) -> None:
        record = settle_trial(folder, study, frozen)
        collect_weights(folder, config.budget.keep_weights, minimise=minimise)
        ended(record, count_done(study))

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # whose banner verbose=0 does not silence
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the records say why a trial failed
    slots = _slots(config)
    scratch = Path(tempfile.mkdtemp(prefix="consilium-tune-"))
    searcher = OptunaSearcher(study, config.space, mode=mode, ended=settle)
    try:
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trainable, config=config),
                {"cpu": config.resources.cpu, "gpu": config.resources.gpu},
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
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
    if searcher.failure is not None:
        raise searcher.failure
    if count_done(study) < before + remaining:
        outside = [r.error for r in folder.records() if r.again and r.number not in told]
        if outside:
            raise StudyError(
                f"{folder.path}: {outside[-1]}; mend it and run the same command again"
            )
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
