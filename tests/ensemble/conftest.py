"""Studies that many tests read. Whoever damages one works on a copy of it (studies.copy_study)."""

import pytest

from search.config import ExperimentConfig
from tests.ensemble.studies import write_study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    """Binary, 3 folds, trials 0 (custom_cnn), 1 and 2 are finalists, 3 was pruned."""
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def multiclass_study(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    """Four classes, one of them positive, else like the binary one."""
    classes = ("nevus", "keratosis", "carcinoma", "melanoma")
    folder = tmp_path_factory.mktemp("multiclass")
    return write_study(folder, classes=classes, positive="melanoma")
