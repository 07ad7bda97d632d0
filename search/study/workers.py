"""Trials of several workers, by DistributedDataParallel on Ray Train. The only Ray Train file."""

import os
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train import get_context
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.config import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import TrainingFailedError, WorkerGroupError
from ray.train.v2.torch.torch_trainer import TorchTrainer
from ray.util import get_current_placement_group
from ray.util.placement_group import PlacementGroup, remove_placement_group

from search.config import ExperimentConfig
from search.errors import ConsiliumError, TrainingError
from search.study.desk import open_desk, set_guard
from search.study.trial import Trial, note_failure, train_trial
from search.training.ranks import Ranks
from search.training.task import Epoch, Report

ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # between looks at whether the workers are done
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",  # of one attempt to place the workers
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # an actor more; a lost trial is done again
}
ATTEMPTS = 10  # to place the workers
LISTEN = 0.5  # seconds between looks at whether the workers are gone


class WorkersLostError(TrainingError):
    """A worker died, or found no place; the params may be innocent."""


def train_with_workers(
    config: ExperimentConfig,
    trial: Trial,
    *,
    report: Report = lambda _: None,
    threads: int | None = None,
) -> None:
    """Train as `train_trial` does, in `resources.workers` processes; inside a Ray task or actor.

    The first worker writes the trial's files. After each epoch the workers wait for `report`, which
    is called here with an epoch that holds no weights. Where it raises, or where this process is
    killed, the workers end and what they occupy is free within seconds.

    Args:
        threads: of each worker; `resources.cpu` if absent.

    Raises:
        ConsiliumError: as `train_trial`.
        WorkersLostError: the record may still say "running".
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    desk, scratch = open_desk(), tempfile.mkdtemp(prefix="consilium-train-")
    order = {"config": config, "trial": trial, "desk": desk, "threads": threads}
    group: PlacementGroup | None = None
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(_trainer(config, order, scratch).fit)
        try:
            while (said := _hear(desk, work)) is not None:
                if isinstance(said, PlacementGroup):
                    group = said
                    shutil.rmtree(scratch, ignore_errors=True)  # only needed to start
                else:
                    report(said)
                desk.answer.remote()
            raise_failure(work)
        except WorkersLostError:
            raise
        except ConsiliumError as error:
            note_failure(config, trial, error)  # only the first worker writes it down itself
            raise
        finally:
            ray.kill(desk)
            if group is not None:
                remove_placement_group(group)
            work.exception()  # with that, `fit` ends
            shutil.rmtree(scratch, ignore_errors=True)


class _Trainer(TorchTrainer):
    """A TorchTrainer that `Guard` clears up after, in place of Ray's cleaner."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        return [each for each in callbacks if not isinstance(each, PlacementGroupCleanerCallback)]


def _trainer(config: ExperimentConfig, order: dict[str, Any], scratch: str) -> TorchTrainer:
    resources = config.resources
    return _Trainer(
        _work,
        train_loop_config=order,
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpu > 0,
            resources_per_worker={"CPU": resources.cpu, "GPU": resources.gpu},
        ),
        run_config=RunConfig(
            name="trial",
            storage_path=scratch,
            failure_config=FailureConfig(
                max_failures=0, max_preemption_failures=0, controller_failure_limit=ATTEMPTS - 1
            ),
        ),
    )


def _work(order: dict[str, Any]) -> None:
    """What each worker does."""
    config, desk = order["config"], order["desk"]
    context = get_context()
    device = "cuda" if config.resources.gpu > 0 else "cpu"
    ranks = Ranks(context.get_world_rank(), context.get_world_size(), device)

    def say(epoch: Epoch) -> None:
        if ranks.rank == 0:
            _say(desk, replace(epoch, state={}))

    group = get_current_placement_group()
    if ranks.rank == 0 and group is not None:
        set_guard(ray.get_runtime_context().current_actor, group)
        _say(desk, group)
    threads = order["threads"] or config.resources.cpu
    train_trial(config, order["trial"], report=say, threads=threads, ranks=ranks)


def _say(desk: Any, what: Any) -> None:
    """Wait for the caller's answer; without a caller end, which is no failure of the trial's."""
    try:
        ray.get(desk.say.remote(what))
    except RayActorError as error:
        raise SystemExit from error


def _hear(desk: Any, work: Future[Any]) -> Any:
    """The next thing the first worker says; None once all are done."""
    heard = desk.hear.remote()
    while not work.done():
        if ray.wait([heard], timeout=LISTEN)[0]:
            return ray.get(heard)
    return None


def raise_failure(work: Future[Any]) -> None:
    """What the workers failed by, the first one's reason first, as `train_trial` would raise it."""
    try:
        work.result()
    except WorkerGroupError as error:
        failures = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
        reasons = [getattr(failure, "_base_exc", failure) for failure in failures]
        for reason in reasons:
            if isinstance(reason, ConsiliumError):
                raise reason from None
        raise WorkersLostError(f"a worker failed: {_line(reasons[0])}") from error
    except TrainingFailedError as error:
        raise WorkersLostError(f"the workers did not start: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
