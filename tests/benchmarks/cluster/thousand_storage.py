"""A study's storage as Optuna keeps it, or as one driver could: it reads back nothing of its own.

Optuna's cache knows finished trials only. Each time a sampler or the course looks at the trials,
everything about all running ones comes from the database again, for other drivers might have
written it. A study has one driver (search/study/lock.py), so what it wrote itself is the truth.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event, text


class OneDriver(_CachedStorage):
    """Optuna's cache, which here may keep the running trials, too; all of it is written at once."""

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self.keeps = True

    @contextmanager
    def as_optuna_does(self) -> Iterator[None]:
        """Read running trials again each time, as Optuna does, after one reading of everything."""
        self.keeps = False
        for study_id in list(self._studies):
            self.get_all_trials(study_id, deepcopy=False)
        try:
            yield
        finally:
            self.keeps = True

    def _read_trials_from_remote_storage(self, study_id: int) -> None:
        if not self.keeps:
            super()._read_trials_from_remote_storage(study_id)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return copy.deepcopy(self._mine(trial_id)) if self.keeps else super().get_trial(trial_id)

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        super().set_trial_param(trial_id, param_name, param_value_internal, distribution)
        mine = self._mine(trial_id)
        mine.distributions = {**mine.distributions, param_name: distribution}
        value = distribution.to_external_repr(param_value_internal)
        mine.params = {**mine.params, param_name: value}

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        done = super().set_trial_state_values(trial_id, state, values)
        if done:
            mine = self._mine(trial_id)
            mine.state = state
            if values is not None:
                mine.values = list(values)
        return done

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        super().set_trial_intermediate_value(trial_id, step, intermediate_value)
        self._mine(trial_id).intermediate_values[step] = intermediate_value

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_user_attr(trial_id, key, value)
        self._mine(trial_id).user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        super().set_trial_system_attr(trial_id, key, value)
        self._mine(trial_id).system_attrs[key] = value

    def _mine(self, trial_id: int) -> FrozenTrial:
        study_id, number = self._trial_id_to_study_id_and_number[trial_id]
        return self._studies[study_id].trials[number]


def count_statements(storage: RDBStorage) -> Callable[[], int]:
    """The number of statements that the storage has sent, from now on."""
    counter = [0]

    def sent(*_: Any) -> None:
        counter[0] += 1

    event.listen(storage.engine, "before_cursor_execute", sent)
    return lambda: counter[0]


def server_clock(storage: RDBStorage) -> Callable[[], float]:
    """CPU seconds of the database's process that serves the storage's connection.

    Always 0 where that is this process, or where it cannot be seen.
    """
    if storage.engine.dialect.name != "postgresql":
        return lambda: 0.0
    with storage.engine.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    times = Path(f"/proc/{pid}/schedstat")
    if not times.is_file():
        return lambda: 0.0
    return lambda: int(times.read_text().split()[0]) / 1e9
