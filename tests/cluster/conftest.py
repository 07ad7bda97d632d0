"""What the command is tried on; nobody changes them."""

from pathlib import Path

import pytest

from tests.experiments import write_experiment
from tests.tiny import tiny_image, write_tiny_bundle


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny", n_members=1)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    tiny_image().save(tmp_path / "lesion.png")
    return tmp_path / "lesion.png"
