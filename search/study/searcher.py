"""Optuna as a Ray Tune searcher: asks for params, and tells Optuna what a trial really came to."""

from typing import Any, Protocol

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from search.params import Params
from search.space import Space
from search.study.trial import Trial


class Course(Protocol):
    """What a study does about its trials; see search/study/course.py."""

    def wants_another(self, under_way: int) -> bool:
        """Whether one more trial may start beside those under way."""

    def waits(self) -> bool:
        """Whether trials are wanted that only find no place now: a node may come back."""

    def began(self, trial: Trial) -> None:
        """A trial was handed out."""

    def reported(self, number: int, result: dict[str, Any]) -> None:
        """A trial reported an epoch."""

    def ended(self, asked: optuna.Trial, state: TrialState, reason: str | None = None) -> None:
        """A trial ended; the course tells Optuna."""


class OptunaSearcher(Searcher):
    """Define-by-run sampling with the study's storage as the only truth.

    A trial that Tune stopped early ends PRUNED with its intermediate values, a crash ends FAIL; in
    ray.tune's own OptunaSearch the first counts as complete with a low-epoch value, and a trial
    that the time budget cuts is left running for ever.

    Trials report `objective`, `epoch` (from 1) and `last` (it ends by itself).
    """

    def __init__(self, study: optuna.Study, space: Space, course: Course, *, mode: str) -> None:
        super().__init__(metric="objective", mode=mode)
        self._study, self._space, self._course = study, space, course
        self._asked: dict[str, optuna.Trial] = {}
        self._reported: dict[str, int] = {}
        self.failure: Exception | None = None  # the course's first; no trial follows it

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its settings down as a pickle, which nobody reads."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self.failure is not None:
            return str(Searcher.FINISHED)
        if not self._course.wants_another(len(self._asked)):
            # One of those under way may yet have to be done again.
            waits = self._asked or self._course.waits()
            return None if waits else str(Searcher.FINISHED)
        asked = self._study.ask()
        self._asked[trial_id] = asked
        trial = self._trial(asked)
        self._course.began(trial)
        return {
            "number": trial.number,
            "recipe": trial.recipe,
            "promoted_from": trial.promoted_from,
            "params": trial.params.model_dump(),
        }

    def _trial(self, asked: optuna.Trial) -> Trial:
        given = asked.user_attrs.get("params")
        if given is None:
            params = self._space.sample(asked)
            asked.set_user_attr("params", params.model_dump())
        else:
            params = Params.model_validate(given)
            self._space.register(asked, params)
        return Trial(
            number=asked.number,
            params=params,
            recipe=asked.user_attrs.get("recipe"),
            promoted_from=asked.user_attrs.get("promoted_from"),
        )

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        asked = self._asked[trial_id]
        if result["epoch"] <= self._reported.get(trial_id, 0):
            return
        self._reported[trial_id] = result["epoch"]
        if len(self._study.directions) == 1:  # Optuna takes no intermediate values of several
            self._guarded(asked.report, result["objective"], result["epoch"])
        self._guarded(self._course.reported, asked.number, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result and "epoch" in result:
            self.on_trial_result(trial_id, result)  # Tune leaves out the one it stops at
        asked = self._asked.pop(trial_id)
        self._reported.pop(trial_id, None)
        state = TrialState.PRUNED
        if error:
            state = TrialState.FAIL
        elif result and result.get("last"):
            state = TrialState.COMPLETE
        self._guarded(self._course.ended, asked, state)

    def abandon(self, reason: str) -> None:
        """End the trials still under way: Tune forgets those that its time budget cuts."""
        for asked in self._asked.values():
            self._guarded(self._course.ended, asked, TrialState.FAIL, reason)
        self._asked.clear()

    def _guarded(self, tell: Any, *words: Any) -> None:
        """Tune would drop an exception's trial and go on."""
        try:
            tell(*words)
        except Exception as failure:
            self.failure = self.failure or failure

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the storage holds it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: a rerun reopens the storage."""
