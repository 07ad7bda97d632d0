"""What is written down and cleared away when a trial has ended."""

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.config import ExperimentConfig
from search.errors import StudyError
from search.params import Params
from search.portfolio import shipped_recipes
from search.study.ledger import Ledger
from search.study.queue import again_of, attempt_of, requeue
from search.study.records import Status, StudyFolder, TrialRecord

ATTEMPTS = 3  # a worker that dies so often on the same params is taken for a failure of these
WORKER_DIED = "the worker died"
STATUS: dict[TrialState, Status] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class Settlement:
    """Gives ended trials their last word: in the record, in the storage, on the disk."""

    def __init__(
        self,
        folder: StudyFolder,
        study: optuna.Study,
        ledger: Ledger,
        config: ExperimentConfig,
    ) -> None:
        """Begin from what a search before this one left."""
        self._folder, self._study, self._ledger = folder, study, ledger
        self._keep, self._constraints = config.budget.keep_weights, config.bounds
        self._recipes = frozenset(shipped_recipes(config.portfolio))
        self._finalists = config.fidelity.finalists
        self._weighty = folder.kept_weights()
        self._take_over()
        self._collect_weights()

    def end(self, asked: optuna.Trial, state: TrialState, reason: str | None = None) -> TrialRecord:
        """Tell the storage and the record how a trial ended.

        A trial that failed by its surroundings, or for a `reason` from outside, is enqueued again.
        """
        number = asked.number
        record = self._record(number)
        if state == TrialState.COMPLETE and len(record.values) < len(self._study.directions):
            state, record = TrialState.FAIL, _undefined(record)
        update: dict[str, object] = {"status": STATUS[state]}
        trial = self._trial(number)
        if state == TrialState.FAIL and record.error is None:
            again = reason is not None or attempt_of(trial) < ATTEMPTS
            update |= {"error": reason or WORKER_DIED, "again": again}
        record = record.model_copy(update=update)
        if record.again:
            requeue(self._study, trial, counts=reason is None)
        for name, excess in self._excesses(record).items():
            asked.set_constraint(name, excess)  # above 0 is infeasible
        values = list(record.values.values()) if state == TrialState.COMPLETE else None
        self._study.tell(asked, values, state=state)
        self._folder.write_record(record)
        self._ledger.note(record)
        self._weighty.add(number)
        self._collect_weights()
        return record

    def _excesses(self, record: TrialRecord) -> dict[str, float]:
        """What is known of a trial's constraints: value minus bound."""
        best = record.epochs[record.best_epoch - 1] if record.best_epoch else {}
        known = {**best, **record.costs}
        return {
            name: value - bound
            for name, bound in self._constraints.items()
            if (value := known.get(name)) is not None
        }

    def _trial(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]

    def _collect_weights(self) -> None:
        """Drop the weights that are no longer among those worth keeping."""
        worth = self._ledger.worth_keeping(self._keep, self._recipes)
        for other in self._weighty - worth - set(self._ledger.finalists(self._finalists)):
            self._folder.drop_weights(other)
            self._weighty.remove(other)

    def _take_over(self) -> None:
        """The finished trials of before; a killed search may have left their records running."""
        records = {record.number: record for record in self._folder.records()}
        again = again_of(self._study)
        for trial in self._study.get_trials(deepcopy=False):
            if not trial.state.is_finished() or "warm_from" in trial.user_attrs:
                continue
            record = records.get(trial.number) or self._record(trial.number)
            redone = trial.number in again and not record.again
            if record.status == "running" or redone:
                record = record.model_copy(update=_last_word(record, trial, redone=redone))
                self._folder.write_record(record)
            self._ledger.note(record)
        for number in {number for number, _ in self._folder.fold_names()}:
            for fold in self._folder.fold_records(number):
                self._ledger.gpu_hours += fold.gpu_hours

    def _record(self, number: int) -> TrialRecord:
        """The trial's own record; a bare one if it never came to write any."""
        try:
            return self._folder.record(number)
        except FileNotFoundError:
            trial = self._trial(number)
            return TrialRecord(
                number=number,
                status="running",
                recipe=trial.user_attrs.get("recipe"),
                params=Params.model_validate(trial.user_attrs.get("params", {})),
                fold=0,
            )


def check_some_finished(folder: StudyFolder, ledger: Ledger) -> None:
    """Say why no trial can be ranked.

    Raises:
        StudyError: none finished, or none meets the constraints.
    """
    if ledger.best is not None:
        return
    records = folder.records()
    if infeasible := [r for r in records if r.violations]:
        name, amount = min(
            (item for r in infeasible for item in r.violations.items()), key=lambda item: item[1]
        )
        raise StudyError(
            f"{folder.path}: no feasible trial among {len(records)}; the nearest exceeds {name} by "
            f"{amount:.4g}; loosen constraints.{name} or offer smaller backbones, and search into "
            "another output folder"
        )
    if records and all(record.again for record in records):
        raise StudyError(
            f"{folder.path}: no trial finished ({records[-1].error}); raise the budget, or mend "
            "what stopped them, and run the same command again"
        )
    reasons = [record.error for record in records if record.error and not record.again]
    raise StudyError(
        f"{folder.path}: no trial finished ({reasons[0] if reasons else 'no trial ran'}); "
        "mend the config and search into another output folder"
    )


def _last_word(record: TrialRecord, trial: FrozenTrial, *, redone: bool) -> dict[str, object]:
    """What a killed search had no time to write down."""
    if redone:
        reason = record.error or "the search was stopped; done again"
        return {"status": STATUS[trial.state], "error": reason, "again": True}
    lost = trial.state == TrialState.FAIL and record.error is None
    error = "its reason was lost with the search" if lost else record.error
    return {"status": STATUS[trial.state], "error": error}


def _undefined(record: TrialRecord) -> TrialRecord:
    return record.model_copy(update={"error": "an objective is not a number"})
