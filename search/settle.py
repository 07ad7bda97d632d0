"""What is written down and cleared away when a trial has ended."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.params import Params
from search.records import Status, StudyFolder, TrialRecord
from search.searcher import requeue

STATUS: dict[TrialState, Status] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def settle_trial(folder: StudyFolder, study: optuna.Study, trial: FrozenTrial) -> TrialRecord:
    """Write a trial's record with the status it ended in.

    A trial that failed by its surroundings is enqueued again; a worker that dies twice on the same
    params is taken for a failure of these.
    """
    record, status = _record(folder, trial), STATUS[trial.state]
    update: dict[str, object] = {"status": status}
    if status == "failed" and record.error is None:
        update |= {"error": "the worker died", "again": "resume_of" not in trial.user_attrs}
    record = record.model_copy(update=update)
    folder.write_record(record)
    if record.again:
        requeue(study, trial)
    return record


def settle_leftovers(folder: StudyFolder, study: optuna.Study) -> None:
    """Give the records that a killed search left behind the status that the storage tells."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get("resume_of") for trial in trials}
    for trial in trials:
        record = _record(folder, trial)
        if not trial.state.is_finished() or record.status != "running":
            continue
        update: dict[str, object] = {"status": STATUS[trial.state]}
        if trial.number in again:
            update |= {"error": "the search was stopped; done again", "again": True}
        folder.write_record(record.model_copy(update=update))


def collect_weights(folder: StudyFolder, keep: int, *, minimise: bool) -> None:
    """Drop all weights but those of the best trials and of the recipes.

    The best are those by the objective, and by NLL, which the ensemble selects on; the recipes'
    stay to stand beside it.
    """
    records = [r for r in folder.records() if r.status != "running"]
    sound = [r for r in records if r.value is not None and r.status != "failed"]
    by_value = sorted(sound, key=lambda r: (r.value or 0.0) * (1 if minimise else -1))
    by_nll = sorted(sound, key=_nll)
    kept = {r.number for r in [*by_value[:keep], *by_nll[:keep]]}
    kept |= {r.number for r in sound if r.recipe}
    for record in records:
        if record.number not in kept:
            folder.drop_weights(record.number)


def _nll(record: TrialRecord) -> float:
    found = record.epochs[record.best_epoch - 1].get("nll") if record.best_epoch else None
    return float("inf") if found is None else found


def _record(folder: StudyFolder, trial: FrozenTrial) -> TrialRecord:
    """The trial's own record; a bare one if it never came to write any."""
    try:
        return folder.record(trial.number)
    except FileNotFoundError:
        return TrialRecord(
            number=trial.number,
            status="running",
            recipe=trial.user_attrs.get("recipe"),
            params=Params.model_validate(trial.user_attrs.get("params", {})),
            fold=0,
        )
