"""A canary's own failures are counted beside what it decides otherwise: a pipeline goes by them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from serving.config import Rollout, ServingConfig
from serving.problems import ProblemError
from serving.scoring.options import Options
from serving.scoring.service import Service
from tests.serving.bundles import rebuilt
from tests.tiny import tiny_bytes, write_tiny_bundle


@pytest.fixture
def service(tmp_path: Path) -> Any:
    old = write_tiny_bundle(tmp_path / "old")
    new = rebuilt(tmp_path / "new", old, version="2")
    bundles = {"old": {"path": str(old)}, "new": {"path": str(new)}}
    canary = {"name": "new", "percent": 100}
    made = Service(ServingConfig(bundle=old))
    made.start(Rollout.model_validate({"bundles": bundles, "serving": "old", "canary": canary}))
    yield made
    made.close()


def failures(service: Service) -> int:
    counts = service.comparison.counts().get("canary")
    return 0 if counts is None else counts.failed


def ask(service: Service, file: bytes) -> None:
    asyncio.run(service.predict([file], Options()))


def test_an_answer_that_it_cannot_give_counts(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("the network is broken")

    monkeypatch.setattr(service.versions.live.canary, "judge", breaks)
    with pytest.raises(RuntimeError, match=r"the network is broken"):
        ask(service, tiny_bytes())
    assert failures(service) == 1


def test_a_caller_s_mistake_does_not(service: Service) -> None:
    with pytest.raises(ProblemError, match=r"image"):
        ask(service, b"no image")
    ask(service, tiny_bytes())
    assert failures(service) == 0
