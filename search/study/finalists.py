"""The best trials on the remaining folds, in parallel Ray tasks: out-of-fold probabilities."""

import logging
import time
from typing import Any

import ray
from ray.exceptions import RayError

from search.config import ExperimentConfig
from search.errors import StudyError
from search.study.course import Course
from search.study.records import StudyFolder, TrialRecord
from search.study.trial import Trial, train_trial
from search.study.workers import WorkersLostError, train_with_workers

RETRIES = 3  # of a task whose worker or node dies
POLL = 1.0  # seconds between looks at the budget


def train_finalists(config: ExperimentConfig, folder: StudyFolder, course: Course) -> None:
    """Train the finalists on every fold they were not searched on, where that is not done yet.

    They train as many epochs as fold 0 chose, at the learning rates it led to; nothing is picked on
    the folds themselves. What the
    budget cuts is done when the command is run again with a larger one.
    """
    numbers = course.ledger.finalists(config.fidelity.finalists)
    folds = course.folds
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
        plateau_nll=tuple(epoch["nll"] or 0.0 for epoch in record.epochs),
        promoted_from=record.promoted_from,
    )


def _is_done(folder: StudyFolder, number: int, fold: int) -> bool:
    return any(r.fold == fold and r.status == "complete" for r in folder.fold_records(number))


def _drop_former(folder: StudyFolder, numbers: list[int]) -> None:
    """Weights of folds whose trial is no finalist any more."""
    for number, fold in folder.fold_names("weights.safetensors"):
        if number not in numbers:
            folder.drop_weights(number, fold=fold)


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
        while (running or (waiting and not course.is_outside)) and course.spent() is None:
            while waiting and len(running) < course.slots.count() and not course.is_outside:
                trial = waiting.pop()
                running[task.remote(config, trial)] = trial
                course.began(trial)
            if not running:  # no node is left: one may come back
                time.sleep(POLL)
                continue
            ready, _ = ray.wait(list(running), timeout=POLL)
            for ref in ready:
                trial = running.pop(ref)
                course.fold_ended(_outcome(folder, trial, ref))
    finally:
        for ref, trial in running.items():
            ray.cancel(ref, force=True)
            _close(folder, trial, "the search was stopped", again=True)


def _train(config: ExperimentConfig, trial: Trial) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    threads = config.resources.cpu
    if config.resources.workers == 1:
        train_trial(config, trial, threads=threads)
        return
    for attempt in range(RETRIES + 1):
        try:
            train_with_workers(config, trial, threads=threads)
            return
        except WorkersLostError:
            if attempt == RETRIES:
                raise


def _outcome(folder: StudyFolder, trial: Trial, ref: Any) -> TrialRecord:
    """The fold's record; a worker that died or could not write leaves it to be closed here."""
    try:
        ray.get(ref)
    except RayError as error:
        cause = getattr(error, "cause", None) or error
        reason = " ".join(str(cause).split())[:500] or type(cause).__name__
        _close(folder, trial, reason, again=isinstance(cause, OSError | StudyError))
    return folder.record(trial.number, fold=trial.fold)


def _close(folder: StudyFolder, trial: Trial, reason: str, *, again: bool) -> None:
    """Write down why a fold ended, where its worker did not."""
    try:
        record = folder.record(trial.number, fold=trial.fold)
    except FileNotFoundError:
        record = TrialRecord(
            number=trial.number, status="running", params=trial.params, fold=trial.fold
        )
    if record.status == "running":
        update = {"status": "failed", "error": reason, "again": again}
        folder.write_record(record.model_copy(update=update))
