"""Ray without its own words on the user's terminal."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

STDERR = 2


@contextmanager
def quietly(connect: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Ray for the length of the block; its native part says nothing but what ends the process.

    Ray Data's pools always warn of arguments that are lost with an actor, at the level of errors.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with ExitStack() as stack:
        with _no_stderr():  # it tells of that very setting
            stack.enter_context(connect())
        yield


@contextmanager
def _no_stderr() -> Iterator[None]:
    """What native code writes to stderr is lost for the length of the block."""
    kept, nothing = os.dup(STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, STDERR)
    try:
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)
        os.close(nothing)
