"""Which trials come next in a study, and which of those that ended count."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from search.errors import StudyError
from search.params import Params
from search.space import Space


class RungStudy(optuna.Study):
    """A study that hands out the waiting trials of one rung only."""

    def __init__(self, study: optuna.Study, *, promoted: bool) -> None:
        self.__dict__.update(study.__dict__)
        self._promoted = promoted

    def _pop_waiting_trial_id(self) -> int | None:
        for trial in self._storage.get_all_trials(
            self._study_id, deepcopy=False, states=(TrialState.WAITING,)
        ):
            if is_promoted(trial.user_attrs) != self._promoted:
                continue
            with suppress(UpdateFinishedTrialError):  # somebody else ended it
                if self._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                    return trial._trial_id
        return None


def enqueue_recipes(study: optuna.Study, space: Space, recipes: Mapping[str, Params]) -> None:
    """Make the recipes the first trials, each of them once.

    Raises:
        StudyError: one of that name was tried with other params.
    """
    attributes = [trial.user_attrs for trial in study.get_trials(deepcopy=False)]
    known = {attrs["recipe"]: attrs["params"] for attrs in attributes if attrs.get("recipe")}
    for recipe, params in recipes.items():
        if known.get(recipe, params.model_dump()) != params.model_dump():
            raise StudyError(
                f"portfolio: {recipe} was tried with other params in this study; give the new ones "
                "another name"
            )
        if recipe not in known:
            attrs = {"recipe": recipe, "params": params.model_dump()}
            study.enqueue_trial(space.inside(params), user_attrs=attrs)


def enqueue_promoted(study: optuna.Study, space: Space, number: int, params: Params) -> None:
    """Let a trial of the first rung be tried again as `params`, once."""
    attrs = {"promoted_from": number, "params": params.model_dump()}
    study.enqueue_trial(space.inside(params), user_attrs=attrs)


def requeue(study: optuna.Study, trial: FrozenTrial, *, counts: bool) -> None:
    """Enqueue a trial that did not fail by its params; then it does not count itself.

    Called before the trial is told: a kill in between loses nothing, for it happens once only.

    Args:
        counts: as an attempt.
    """
    if trial.number not in again_of(study):
        kept = {k: v for k, v in trial.user_attrs.items() if k != "fixed_params"}
        again = {"resume_of": trial.number, "attempt": attempt_of(trial) + counts}
        study.enqueue_trial(trial.params, user_attrs={**kept, **again})


def requeue_interrupted(study: optuna.Study) -> None:
    """What a killed search left running is told FAIL and enqueued again."""
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING:
            requeue(study, trial, counts=False)
            study.tell(trial.number, state=TrialState.FAIL)


def attempt_of(trial: FrozenTrial) -> int:
    """Which attempt at its params a trial is, from 1."""
    return int(trial.user_attrs.get("attempt", 1))


def again_of(study: optuna.Study) -> set[int]:
    """Numbers of the trials that were enqueued again."""
    trials = study.get_trials(deepcopy=False)
    return {t.user_attrs["resume_of"] for t in trials if "resume_of" in t.user_attrs}


def promoted_of(study: optuna.Study) -> set[int]:
    """Numbers of the trials that were promoted to the second rung."""
    trials = study.get_trials(deepcopy=False)
    return {t.user_attrs["promoted_from"] for t in trials if is_promoted(t.user_attrs)}


def is_first_rung(attrs: Mapping[str, Any]) -> bool:
    """Whether a trial with these user attributes is one of this study's own first rung."""
    return "warm_from" not in attrs and not is_promoted(attrs)


def is_promoted(attrs: Mapping[str, Any]) -> bool:
    """Whether a trial with these user attributes is of the second rung."""
    return "promoted_from" in attrs


def count_done(study: optuna.Study, *, promoted: bool = False) -> int:
    """Trials of a rung that count: finished, pruned or failed, but not those done again."""
    again = again_of(study)
    return sum(
        trial.state.is_finished()
        and trial.number not in again
        and "warm_from" not in trial.user_attrs
        and is_promoted(trial.user_attrs) == promoted
        for trial in study.get_trials(deepcopy=False)
    )


def target_of(study: optuna.Study, budget: int, asked: str | None) -> int:
    """How many trials are wanted in all; what is asked for is remembered in the study.

    Args:
        budget: the config's.
        asked: "40" is 40 in all, "+10" is 10 more; the same "+10" again, while the search for
            these has not come to its end, goes on with them. None is what was asked before, or
            the budget where that is more.
    """
    known = study.user_attrs.get("target", {"trials": 0, "asked": None, "reached": True})
    base = max(budget, int(known["trials"]))
    if asked is None:
        return base
    extends = asked.startswith("+")
    if extends and known["asked"] == asked and not known["reached"]:
        return int(known["trials"])
    trials = base + int(asked) if extends else int(asked)
    study.set_user_attr("target", {"trials": trials, "asked": asked, "reached": False})
    return trials


def reach_target(study: optuna.Study) -> None:
    """Note that what was asked for is done, finalists included."""
    known = study.user_attrs.get("target")
    if known is not None and not known["reached"]:
        study.set_user_attr("target", {**known, "reached": True})
