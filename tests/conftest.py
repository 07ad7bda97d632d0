"""How a test session ends."""

import os
import sys

import pytest

STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave with the tests' own status, at once.

    Everything is reported and every fixture torn down by now. Ray, torch, Arrow and onnxruntime in
    one process sometimes crash in their native destructors as the interpreter goes down.
    """
    if STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[STATUS])
