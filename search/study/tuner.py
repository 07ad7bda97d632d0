"""Trials on Ray Tune: Optuna samples, ASHA stops. The only Ray Tune file."""

import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from search.atomic import finite
from search.config import ExperimentConfig
from search.errors import InfeasibleError
from search.objectives import minimised
from search.params import Params
from search.study.course import Course
from search.study.queue import RungStudy, is_first_rung
from search.study.resources import MOST
from search.study.searcher import OptunaSearcher
from search.study.trial import Trial, train_trial
from search.study.workers import train_with_workers
from search.training.task import Epoch

ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # its banner knows no silence
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the records hold it all
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # an infeasible trial reports none
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would wait for the epochs under way
    "TUNE_FORCE_TRIAL_CLEANUP_S": "10",  # what the time budget cuts does not finish its epoch
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # the storage is what a rerun goes by
}

Train = Callable[..., object]  # with the signature of train_trial


def tune_trials(
    config: ExperimentConfig,
    study: optuna.Study,
    course: Course,
    *,
    stopping: bool = True,
    train: Train | None = None,
) -> None:
    """Train trials until the course wants no more.

    Args:
        stopping: by ASHA, in the first rung; without, the second rung's trials train. Of several
            objectives none is stopped early, for no one order ranks them.
        train: what a worker does with a trial; train_trial, or train_with_workers, if absent.

    Raises:
        KeyboardInterrupt: Ctrl-C; the trials under way are enqueued again.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # the records say why a trial failed
    alone = config.resources.workers == 1
    train = train or (train_trial if alone else train_with_workers)
    mode = "min" if minimised(config.objectives[0]) else "max"
    rung = RungStudy(study, promoted=not stopping)
    searcher = OptunaSearcher(rung, config.space, course, mode=mode)
    scratch = Path(tempfile.mkdtemp(prefix="consilium-tune-"))
    reason = "the search was stopped"
    try:
        tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trainable, config=config, train=train), course.slots.bundle
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=_scheduler(config, study, mode) if stopping else _fifo(),
                num_samples=-1,  # the course says when it is enough
                max_concurrent_trials=MOST,
                reuse_actors=alone,  # a caller of workers must see them end
                trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=config.name,
                storage_path=str(scratch),
                verbose=0,
                stop=_Ended(course, searcher),
                callbacks=[_Silence()],
            ),
        ).fit()
        reason = f"{course.spent()} was used up"
    finally:
        searcher.abandon(reason)
        shutil.rmtree(scratch, ignore_errors=True)
    if searcher.failure is not None:
        raise searcher.failure


class _Silence(TrialProgressCallback):
    """In the place of Tune's own, which prints on stdout whatever `verbose` says."""

    def on_trial_result(self, *_: Any, **__: Any) -> None:
        pass

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        pass

    def on_trial_error(self, *_: Any, **__: Any) -> None:
        pass


class _Ended(tune.Stopper):
    """Ends all trials when a budget is used up, or the storage or the disk fails."""

    def __init__(self, course: Course, searcher: OptunaSearcher) -> None:
        self._course, self._searcher = course, searcher

    def __getstate__(self) -> dict[str, Any]:
        return {}  # see OptunaSearcher

    def __call__(self, *_: object) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._course.spent() is not None or self._searcher.failure is not None


class Asha(AsyncHyperBandScheduler):
    """ASHA that knows its rungs again when a study goes on."""

    def replay(self, trials: Iterable[FrozenTrial], mode: str) -> None:
        """Hear of what trials before this search reported, in their order."""
        sign = 1 if mode == "max" else -1
        for trial in trials:
            known: Any = SimpleNamespace(trial_id=f"before {trial.number}")
            best = -math.inf
            for epoch, value in sorted(trial.intermediate_values.items()):
                best = max(best, sign * value)
                self._brackets[0].on_result(known, epoch, best)


def _fifo() -> TrialScheduler:
    return FIFOScheduler()  # type: ignore[no-untyped-call]


def _scheduler(config: ExperimentConfig, study: optuna.Study, mode: str) -> TrialScheduler:
    if len(config.objectives) > 1:
        return _fifo()
    fidelity = config.fidelity
    asha = Asha(
        time_attr="epoch",
        metric="best",  # so far: that epoch is what would be kept
        mode=mode,
        max_t=fidelity.max_epochs,
        grace_period=min(fidelity.grace, fidelity.max_epochs),
        reduction_factor=fidelity.reduction,
    )
    trials = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])
    asha.replay((t for t in trials if is_first_rung(t.user_attrs)), mode)
    return asha


def _trainable(settings: dict[str, Any], *, config: ExperimentConfig, train: Train) -> None:
    """One trial inside a Tune worker."""
    trial = Trial(**{**settings, "params": Params.model_validate(settings["params"])})

    def report(epoch: Epoch) -> None:
        metrics = json.dumps(finite(epoch.metrics))  # as text, which Tune keeps no statistics of
        tune.report(
            {
                "epoch": epoch.number,
                "objective": epoch.value,
                "best": epoch.best_value,
                "last": epoch.last,
                "metrics": metrics,
            }
        )

    try:
        train(config, trial, report=report, threads=config.resources.cpu)
    except InfeasibleError:
        return  # the record says so; Optuna is told PRUNED
