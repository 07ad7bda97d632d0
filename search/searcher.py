"""Optuna as a Ray Tune searcher: asks for params, and tells Optuna what a trial really came to."""

from collections.abc import Callable
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from search.params import Params
from search.space import Space

Direction = Literal["minimize", "maximize"]


class OptunaSearcher(Searcher):
    """Define-by-run sampling with the study's storage as the only truth.

    A trial that Tune stopped early ends PRUNED with its intermediate values, a crash ends FAIL; in
    ray.tune's own OptunaSearch the first counts as complete with a low-epoch value.

    Trials report `objective`, `best` (so far), `epoch` (from 1) and `last` (it ends by itself).
    """

    def __init__(
        self,
        study: optuna.Study,
        space: Space,
        *,
        mode: str,
        ended: Callable[[FrozenTrial], None],
    ) -> None:
        """Sample from `space` into `study`; `ended` hears of each trial's end."""
        super().__init__(metric="objective", mode=mode)
        self._study, self._space, self._ended = study, space, ended
        self._asked: dict[str, optuna.Trial] = {}
        self._reported: dict[str, int] = {}
        self.failure: Exception | None = None  # the first of `ended`; no trial follows it

    def suggest(self, trial_id: str) -> dict[str, Any] | str:  # type: ignore[override]
        if self.failure is not None:
            return str(Searcher.FINISHED)
        trial = self._study.ask()
        recipe, given = (trial.user_attrs.get(name) for name in ("recipe", "params"))
        if given is None:
            params = self._space.sample(trial)
            trial.set_user_attr("params", params.model_dump())
        else:
            params = Params.model_validate(given)
            self._space.register(trial, params)
        self._asked[trial_id] = trial
        return {"number": trial.number, "recipe": recipe, "params": params.model_dump()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        trial = self._asked[trial_id]
        if result["epoch"] > self._reported.get(trial_id, 0):
            trial.report(result["objective"], result["epoch"])
            self._reported[trial_id] = result["epoch"]

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result and "epoch" in result:
            self.on_trial_result(trial_id, result)  # Tune leaves out the one it stops at
        trial = self._asked.pop(trial_id)
        if error or not result or "best" not in result:
            frozen = self._study.tell(trial, state=TrialState.FAIL)
        elif result["last"]:
            frozen = self._study.tell(trial, result["best"])
        else:
            frozen = self._study.tell(trial, state=TrialState.PRUNED)
        try:
            self._ended(frozen)
        except Exception as failure:
            self.failure = self.failure or failure

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the storage holds it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a rerun reopens the storage."""


def open_optuna_study(
    storage: str,
    name: str,
    *,
    direction: Direction,
    seed: int,
    recipes: dict[str, Params],
    space: Space,
) -> optuna.Study:
    """Create the study with its recipes enqueued as the first trials, or reopen it.

    Trials that a killed search left running are told FAIL and enqueued again.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage, study_name=name, direction=direction, load_if_exists=True
    )
    trials = study.get_trials(deepcopy=False)
    # A reopened study continues with fresh random numbers: the same seed would repeat its draws.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(trials))
    if not trials:
        for recipe, params in recipes.items():
            attrs = {"recipe": recipe, "params": params.model_dump()}
            study.enqueue_trial(space.inside(params), user_attrs=attrs)
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            requeue(study, study.tell(trial.number, state=TrialState.FAIL))
    return study


def requeue(study: optuna.Study, trial: FrozenTrial) -> None:
    """Enqueue a trial that did not fail by its params; then it does not count itself."""
    attrs: dict[str, Any] = {**trial.user_attrs, "resume_of": trial.number}
    study.enqueue_trial(trial.params, user_attrs=attrs)


def count_done(study: optuna.Study) -> int:
    """Trials that count: finished, pruned or failed, but not those that were enqueued again."""
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get("resume_of") for trial in trials}
    return sum(trial.state.is_finished() and trial.number not in again for trial in trials)
