"""How a test session begins and ends."""

import os
import sys

import pytest

STATUS = pytest.StashKey[int]()
# A Ray of a test's own asks for a token only where the test says so: else Ray would take, or make,
# one in the home folder of whoever runs the tests.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


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
