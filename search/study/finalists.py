"""The best trials on the remaining folds, in parallel Ray tasks: out-of-fold probabilities."""

import logging
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from search.config import ExperimentConfig
from search.study.course import Course
from search.study.records import StudyFolder, TrialRecord
from search.study.trial import Trial, train_trial
from search.study.workers import train_with_workers

RETRIES = 3  # of a task whose worker or node dies
POLL = 1.0  # seconds between looks at the budget


def train_finalists(config: ExperimentConfig, folder: StudyFolder, course: Course) -> None:
    """Train the finalists on every fold they were not searched on, where that is not done yet.

    They train as many epochs as fold 0 chose; nothing is picked on the folds themselves. What the
    budget cuts is done when the command is run again with a larger one.
    """
    numbers = course.ledger.finalists(config.fidelity.finalists)
    folds = range(1, config.splits.folds)
    todo = [
        _trial(folder.record(number), fold)
        for number in numbers
        for fold in folds
        if not _is_done(folder, number, fold)
    ]
    wanted = len(numbers) * len(folds)
    course.begin("finalists", done=wanted - len(todo), target=wanted)
    _drop_former(folder, numbers)
    if todo:
        _train_all(config, folder, course, todo)


def _trial(record: TrialRecord, fold: int) -> Trial:
    return Trial(
        number=record.number,
        params=record.params,
        recipe=record.recipe,
        fold=fold,
        epochs=record.best_epoch,
        promoted_from=record.promoted_from,
    )


def _is_done(folder: StudyFolder, number: int, fold: int) -> bool:
    return any(r.fold == fold and r.status == "complete" for r in folder.fold_records(number))


def _drop_former(folder: StudyFolder, numbers: list[int]) -> None:
    """Weights of folds whose trial is no finalist any more."""
    for record in folder.records():
        if record.number not in numbers:
            for fold in folder.fold_records(record.number):
                folder.drop_weights(fold.number, fold=fold.fold)


def _train_all(
    config: ExperimentConfig, folder: StudyFolder, course: Course, todo: list[Trial]
) -> None:
    bundle = course.slots.bundle
    task = ray.remote(_train).options(
        num_cpus=bundle.get("cpu", 0),
        num_gpus=bundle.get("gpu", 0),
        memory=bundle.get("memory"),
        max_retries=RETRIES,
    )
    waiting, running = list(reversed(todo)), dict[Any, Trial]()
    try:
        while (waiting or running) and course.spent() is None:
            while waiting and len(running) < course.slots.count():
                trial = waiting.pop()
                running[task.remote(config, trial)] = trial
                course.began(trial)
            ready, _ = ray.wait(list(running), timeout=POLL)
            for ref in ready:
                trial = running.pop(ref)
                course.fold_ended(_outcome(folder, trial, ref))
    finally:
        for ref in running:
            ray.cancel(ref, force=True)


def _train(config: ExperimentConfig, trial: Trial) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    train = train_trial if config.resources.workers == 1 else train_with_workers
    train(config, trial, threads=config.resources.cpu)


def _outcome(folder: StudyFolder, trial: Trial, ref: Any) -> TrialRecord:
    """The fold's record; a worker that died leaves it to be closed here."""
    try:
        ray.get(ref)
    except RayTaskError:
        pass  # the record says why
    except RayError as error:
        record = folder.record(trial.number, fold=trial.fold)
        reason = f"the worker died {RETRIES + 1} times ({type(error).__name__})"
        folder.write_record(record.model_copy(update={"status": "failed", "error": reason}))
    return folder.record(trial.number, fold=trial.fold)
