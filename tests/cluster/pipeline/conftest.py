"""An experiment with fakes in the place of search and build."""

from pathlib import Path

import pytest

from ensemble.bundle import load_bundle
from ensemble.calibration.calibrators import Temperature
from search.data.synthetic import write_dataset
from serving.scoring.compare import Counts
from tests.cluster.pipeline.fakes import FakeAdmin
from tests.cluster.pipeline.site import Site, wire, write_site
from tests.serving.bundles import rebuilt
from tests.tiny import write_tiny_bundle

ENOUGH = Counts(agreements=200)

SERVICE = {"service": "http://fake:8000"}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/ and three bundles: old, new says all but the same, bad says the opposite."""
    folder = tmp_path_factory.mktemp("material")
    write_dataset(folder / "data", n_images=16, size=32)
    old = write_tiny_bundle(folder / "old", n_members=1)
    rebuilt(folder / "new", old, calibrator=Temperature(temperature=1.31))
    rebuilt(folder / "bad", old, calibrator=Temperature(temperature=0.02))
    return folder


@pytest.fixture
def site(tmp_path: Path, material: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Without a service."""
    return wire(write_site(tmp_path, material / "data", [material / "new"]), monkeypatch)


@pytest.fixture
def served(site: Site, material: Path) -> Site:
    """The same with a service where the old bundle answers."""
    digest = load_bundle(material / "old").manifest.digest
    site.admin = FakeAdmin(material / "old", [ENOUGH], digest=digest)
    site.write(pipeline=SERVICE)
    return site
