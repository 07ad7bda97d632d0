"""The storage of a search, and Optuna's own for comparison; what either costs the database."""

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages import RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event, text

from search.study.kept import KeptStorage


class ComparedStorage(KeptStorage):
    """A search's storage, which can read as Optuna's own cache does for a while.

    What is written goes the same way: one reading of a trial that begins or ends is the search's.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self._optunas = _CachedStorage(backend)
        self.is_optunas = False

    @contextmanager
    def as_optuna_does(self) -> Iterator[None]:
        """Read running trials again each time, as Optuna does, after one reading of everything."""
        for study_id in list(self._trials):
            self._optunas.get_all_trials(study_id, deepcopy=False)
        self.is_optunas = True
        try:
            yield
        finally:
            self.is_optunas = False

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._optunas.get_trial(trial_id) if self.is_optunas else super().get_trial(trial_id)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        if self.is_optunas:
            return self._optunas.get_all_trials(study_id, deepcopy, states)
        return super().get_all_trials(study_id, deepcopy, states)


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
