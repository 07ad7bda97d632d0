"""A study from beginning to end: data, trials, second rung, finalists; a rerun goes on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial

import optuna
import yaml
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from sqlalchemy.exc import SQLAlchemyError

from search.atomic import write_text
from search.config import ExperimentConfig
from search.errors import StudyError
from search.objectives import minimised
from search.params import Params
from search.portfolio import load_portfolio
from search.rules import Range
from search.study.clock import Clock
from search.study.course import Course
from search.study.finalists import train_finalists
from search.study.identity import refuse_changed_data, refuse_other, stored_config
from search.study.intake import Progress, take_in
from search.study.kept import KeptStorage
from search.study.lock import one_search
from search.study.queue import (
    count_done,
    enqueue_promoted,
    enqueue_recipes,
    promoted_of,
    reach_target,
    requeue_interrupted,
    target_of,
)
from search.study.records import StudyFolder
from search.study.resources import Slots
from search.study.samplers import build_sampler, check_sampler
from search.study.settle import check_some_finished
from search.study.standing import Watch
from search.study.storage import opened_storage, shown, storage_url, without_password, words_of
from search.study.trial import open_fold_images
from search.study.tuner import tune_trials
from search.study.warmstart import warm_start
from search.tracking.trackers import open_tracker
from search.training.backbones import build_classifier, preprocessing_of
from search.training.losses import build_loss

FEW, MANY = 2, 16  # threads that decode: on a node that has other work, and at the most


def run_study(
    config: ExperimentConfig,
    *,
    trials: str | None = None,
    warm: Sequence[StudyFolder] = (),
    progress: Progress = lambda *_: None,
    watch: Watch = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> StudyFolder:
    """Search until the budget is used; a rerun goes on where the last one stopped.

    Ray must be running. The data are taken in first, where this has not happened yet.

    Args:
        trials: "40" for so many in all, "+10" for so many more; the config's budget if None.
        warm: earlier studies whose trials the sampler shall learn from.
        progress: hears of the long steps before the first trial.
        watch: hears of every change in the study's standing, and of each trial's end.
        say: hears what a person should know, in a line.

    Raises:
        StudyError: a trial does not fit on the cluster, the folder holds another experiment's
            study or other data, or no trial could finish.
    """
    folder = StudyFolder(config.study_folder)
    url = storage_url(folder, config.storage)
    check_sampler(config.sampler, config.space, n_objectives=len(config.objectives))
    load_portfolio(config.portfolio, n_classes=2)  # a mistake in it is better told at once
    slots = Slots(config.resources, say=say)
    with closing(slots), _held(folder, url, say) as storage:
        clock = Clock(folder.path / "clock.json", config.budget)
        if not folder.exists():
            _begin(config, folder, progress)
        head = folder.head()
        refuse_other(config, folder)
        refuse_changed_data(config, folder, progress=progress)
        recipes = load_portfolio(config.portfolio, n_classes=len(head.classes))
        _check_trials(config, recipes, len(head.classes))
        study = _open(config, storage, head.storage_name or head.name, recipes)
        for earlier in warm:
            _warm_up(config, folder, study, earlier, say)
        _warm_caches(config, recipes.values(), slots.cpus_here(), progress)
        with open_tracker(config, config.name, warn=say) as tracker:
            watching = tracker.watching(watch)
            course = Course(config, folder, study, clock, slots, tracker=tracker, watch=watching)
            try:
                _search(config, folder, study, course, trials, say)
            except (SQLAlchemyError, StorageInternalError) as error:
                raise StudyError(
                    f"{shown(url)}: {words_of(error)}; mend it and run the same command again"
                ) from error
            finally:
                clock.save(now=True)
    check_some_finished(folder, course.ledger)
    return folder


@contextmanager
def _held(folder: StudyFolder, url: str, say: Callable[[str], None]) -> Iterator[BaseStorage]:
    """The study's storage, while no other search works on it."""
    folder.create()
    with one_search(folder, url, say=say), opened_storage(url) as storage:
        yield KeptStorage(storage)


def _begin(config: ExperimentConfig, folder: StudyFolder, progress: Progress) -> None:
    head = take_in(config, folder, progress)
    document = config.model_dump(mode="json", exclude_none=True)
    if config.storage is not None:
        document["storage"] = without_password(config.storage)
    document.pop("tracking", None)  # it may change, and its URL may hold a password
    write_text(folder.path / "config.yaml", yaml.safe_dump(document, sort_keys=False))
    folder.write_head(head)


def _check_trials(config: ExperimentConfig, recipes: dict[str, Params], n_classes: int) -> None:
    """Build what the recipes and the space ask for once: what is missing stops the study now."""
    for params in {*recipes.values(), *config.space.corners()}:
        build_classifier(params, n_classes, config.weights)
        build_loss(params, None, n_classes)


def _open(
    config: ExperimentConfig, storage: BaseStorage, name: str, recipes: dict[str, Params]
) -> optuna.Study:
    """Create the study with its recipes enqueued as the first trials, or reopen it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=["minimize" if minimised(o) else "maximize" for o in config.objectives],
        load_if_exists=True,
    )
    # A reopened study continues with fresh random numbers: the same seed would repeat its draws.
    study.sampler = build_sampler(
        config.sampler,
        config.space,
        seed=config.seed,
        n_objectives=len(config.objectives),
        drawn=len(study.get_trials(deepcopy=False)),
    )
    enqueue_recipes(study, config.space, recipes)
    requeue_interrupted(study)
    return study


def _warm_up(
    config: ExperimentConfig,
    folder: StudyFolder,
    study: optuna.Study,
    earlier: StudyFolder,
    say: Callable[[str], None],
) -> None:
    """Let the sampler learn from an earlier study's trials, and say which do not fit."""
    ours, theirs = folder.head(), earlier.head()
    if (theirs.objectives or [theirs.objective]) != ours.objectives:
        raise StudyError(
            f"{earlier.path}: its objective is {theirs.objective}, here it is {ours.objective}: "
            "their values cannot be compared; leave it out of --warm-start"
        )
    if theirs.storage_name == ours.storage_name:
        raise StudyError(f"{earlier.path}: this is the study itself; leave it out of --warm-start")
    if stored_config(earlier).policy != config.policy:
        say(f"{earlier.path}: made under another policy; its operating points are only a hint here")
    if (theirs.data_digest, theirs.splits_hash) != (ours.data_digest, ours.splits_hash):
        say(f"{earlier.path}: made from other images or folds; its values are only a hint here")
    with earlier_study(earlier) as known:
        found = warm_start(study, known, config.space, source=theirs.storage_name or theirs.name)
    say(f"{earlier.path}: {found.added} trials added")
    for number, reason in found.refused.items():
        say(f"{earlier.path}: trial {number} left out: {reason}")


@contextmanager
def earlier_study(folder: StudyFolder) -> Iterator[optuna.Study]:
    """The Optuna study of a study folder, as its own config says where it lies.

    Raises:
        StudyError: there is no study, or its storage cannot be read.
    """
    head = folder.head()
    url = storage_url(folder, stored_config(folder).storage)
    with opened_storage(url) as storage:
        try:
            study = optuna.load_study(study_name=head.storage_name or head.name, storage=storage)
        except KeyError as error:
            raise StudyError(f"{folder.path}: its storage holds no study {head.name!r}") from error
        yield study


def _warm_caches(
    config: ExperimentConfig, recipes: Iterable[Params], cpus: int, progress: Progress
) -> None:
    """Decode the images at the sizes known now; others follow when a trial asks for them.

    Args:
        cpus: of this node; 0 where no trial trains on it. Then a cache on each node's own disk is
            left to those that have trials; one in the output folder may be everybody's.
    """
    if config.resources.shard or (not cpus and config.cache is not None):
        return
    any_size = isinstance(config.space.root.get("image_size"), Range)
    known = [*recipes, *([] if any_size else config.space.corners())]
    threads = min(cpus or FEW, MANY)
    for params in {preprocessing_of(p).size: p for p in known}.values():
        what = f"decode at {params.image_size} pixels"
        open_fold_images(config, params, threads=threads, progress=partial(progress, what))


def _search(
    config: ExperimentConfig,
    folder: StudyFolder,
    study: optuna.Study,
    course: Course,
    asked: str | None,
    say: Callable[[str], None],
) -> None:
    """Trials, the second rung, the finalists' other folds: each as far as it is not done yet."""
    target = target_of(study, config.budget.trials, asked)
    course.begin("trials", done=count_done(study), target=target)
    if course.wants_another(0):
        tune_trials(config, study, course)
    course.raise_outside()
    if course.done < target and course.spent() is None:
        say(f"{course.done} of {target} trials: the rest of budget.minutes is the finalists'")
    if config.fidelity.image_size is not None and course.spent() is None:
        promoted = _promote(config, folder, study, course)
        course.begin("second rung", done=count_done(study, promoted=True), target=promoted)
        if course.wants_another(0):
            tune_trials(config, study, course, stopping=False)
        course.raise_outside()
    if course.spent() is None:
        train_finalists(config, folder, course)
        course.raise_outside()
    if (spent := course.spent()) is not None:
        say(f"{spent} is used up; raise it and run the same command to go on")
    else:
        reach_target(study)


def _promote(
    config: ExperimentConfig, folder: StudyFolder, study: optuna.Study, course: Course
) -> int:
    """Enqueue the best trials at the second rung's image size; how many there are in all."""
    known = promoted_of(study)
    for number in course.ledger.finalists(config.fidelity.finalists, promoted=False):
        params = folder.record(number).params
        larger = params.model_copy(update={"image_size": config.fidelity.image_size})
        if number not in known and larger != params:
            enqueue_promoted(study, config.space, number, larger)
    return len(promoted_of(study))
