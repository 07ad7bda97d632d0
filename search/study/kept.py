"""A study's storage as its one driver sees it: what it wrote is not read back.

Optuna's own cache keeps ended trials only: each look at the trials reads everything about all those
that run from the database again, for other processes might have written it. A study has one driver
(search/study/lock.py), so what went into the database through it is what stands there.
"""

import copy
import json
import threading
from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState


class KeptStorage(BaseStorage):
    """Writes through to a storage, and reads each study's trials from it once.

    A write is kept once the storage has taken it. Trials that are handed out never change: a write
    puts another object in their place. What another process writes meanwhile is not looked for; a
    trial that somebody else created is seen as soon as this driver creates another one.
    """

    def __init__(self, backend: RDBStorage) -> None:
        self._backend = backend
        self._drawn: dict[tuple[int, str], BaseDistribution] = {}  # by study and param
        self._trials: dict[int, dict[int, FrozenTrial]] = {}  # by study, then by trial
        self._study_of: dict[int, int] = {}
        self._about: dict[int, tuple[str, list[StudyDirection]]] = {}
        self._lock = threading.RLock()

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        return self._backend.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._backend.delete_study(study_id)
        with self._lock:
            self._about.pop(study_id, None)
            self._drawn = {key: found for key, found in self._drawn.items() if key[0] != study_id}
            for trial_id in self._trials.pop(study_id, {}):
                del self._study_of[trial_id]

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._backend.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._backend.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._backend.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._told(study_id)[0]

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return list(self._told(study_id)[1])

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._backend.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._backend.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        return self._backend.get_all_studies()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        with self._lock:
            trials = self._all(study_id)
            created = self._backend._create_new_trial(study_id, template_trial)
            trial_id = created._trial_id
            if created.number != len(trials):  # numbers are places: others have come in between
                del self._trials[study_id]
                self._all(study_id)
            else:
                self._study_of[trial_id] = study_id
                self._put(created if template_trial is None else self._backend.get_trial(trial_id))
        return trial_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        with self._lock:
            study_id = self._study_of.get(trial_id)
            # Optuna would search all params of the database for it.
            known = None if study_id is None else self._drawn.get((study_id, param_name))
        self._backend._set_trial_param(
            trial_id, param_name, param_value_internal, distribution, known
        )
        if study_id is not None:
            self._drawn.setdefault((study_id, param_name), distribution)
        value = distribution.to_external_repr(param_value_internal)
        self._add(trial_id, "params", param_name, value)
        self._add(trial_id, "distributions", param_name, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        try:
            done = self._backend.set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:  # somebody else ended it
            self._read_again(trial_id)
            raise
        self._read_again(trial_id)  # its times are the database's
        return done

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self._backend.set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._add(trial_id, "intermediate_values", step, float(intermediate_value))

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._backend.set_trial_user_attr(trial_id, key, value)
        self._add(trial_id, "user_attrs", key, _as_stored(value))

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._backend.set_trial_system_attr(trial_id, key, value)
        self._add(trial_id, "system_attrs", key, _as_stored(value))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._lock:
            study_id = self._study_of.get(trial_id)
            if study_id is not None:
                # optuna.Trial writes into what it gets.
                return copy.deepcopy(self._trials[study_id][trial_id])
        return self._backend.get_trial(trial_id)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        with self._lock:
            trials = self._all(study_id).values()
            found = [t for t in trials if states is None or t.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def remove_session(self) -> None:
        self._backend.remove_session()

    def _told(self, study_id: int) -> tuple[str, list[StudyDirection]]:
        """A study's name and directions, which never change."""
        if study_id not in self._about:
            name = self._backend.get_study_name_from_id(study_id)
            self._about[study_id] = (name, self._backend.get_study_directions(study_id))
        return self._about[study_id]

    def _all(self, study_id: int) -> dict[int, FrozenTrial]:
        """A study's trials in the order of their numbers."""
        if study_id not in self._trials:
            read = self._backend.get_all_trials(study_id, deepcopy=False)
            trials = sorted(read, key=lambda trial: trial.number)
            self._trials[study_id] = {trial._trial_id: trial for trial in trials}
            self._study_of.update(dict.fromkeys(self._trials[study_id], study_id))
            for trial in trials:
                for name, distribution in trial.distributions.items():
                    self._drawn.setdefault((study_id, name), distribution)
        return self._trials[study_id]

    def _read_again(self, trial_id: int) -> None:
        with self._lock:
            if trial_id in self._study_of:
                self._put(self._backend.get_trial(trial_id))

    def _add(self, trial_id: int, what: str, key: str | int, value: Any) -> None:
        """Put a value into one of a trial's dicts."""
        with self._lock:
            if trial_id in self._study_of:
                changed = copy.copy(self._trials[self._study_of[trial_id]][trial_id])
                setattr(changed, what, {**getattr(changed, what), key: value})
                self._put(changed)

    def _put(self, trial: FrozenTrial) -> None:
        self._trials[self._study_of[trial._trial_id]][trial._trial_id] = trial


def _as_stored(value: Any) -> Any:
    """An attribute as the database gives it back."""
    return json.loads(json.dumps(value))
