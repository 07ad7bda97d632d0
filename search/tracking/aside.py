"""Work that is done in a thread of its own, in order, while its caller goes on."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread

PATIENCE = 60.0  # seconds that `close` waits for what is left


class Aside:
    """One thread's tasks. After the first that fails none is done, and its error comes back."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._failure: Exception | None = None
        self._thread = Thread(target=self._work, name="consilium-aside", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Tasks that have not begun."""
        return self._tasks.qsize()

    def do(self, task: Callable[[], None]) -> None:
        """Have a task done after those before it.

        Raises:
            Exception: that of an earlier task.
        """
        if self._failure is not None:
            raise self._failure
        self._tasks.put(task)

    def close(self, *, patience: float = PATIENCE) -> None:
        """Wait until all is done.

        Raises:
            Exception: that of the task that failed.
            TimeoutError: it is not done within so many seconds.
        """
        self._tasks.put(None)
        self._thread.join(patience)
        if self._failure is not None:
            raise self._failure
        if self._thread.is_alive():
            self._failure = TimeoutError(f"not done within {patience:g} s")
            raise self._failure

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            if self._failure is None:
                try:
                    task()
                except Exception as error:
                    self._failure = error
