"""A service without its HTTP interface."""

import asyncio
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.bundle import MANIFEST, hash_files, load_bundle
from ensemble.runtime import Runtime
from search.data.transforms import decode
from search.errors import BundleError
from serving.config import ServingConfig
from serving.service import Service
from tests.tiny import tiny_bytes


def rebuilt(folder: Path, old: Path, *, golden: float | None = None, **changes: Any) -> Path:
    """A copy of a bundle with changes, and a golden image whose probabilities are off by some."""
    shutil.copytree(old, folder)
    if golden is not None:
        (folder / "golden" / "0.png").write_bytes(tiny_bytes(7))
        probs = Runtime(load_bundle(old)).predict([decode(tiny_bytes(7))]).probs[0]
        off = (probs + np.array([golden, -golden])).tolist()
        (folder / "golden" / "probs.json").write_text(json.dumps({"onnx": {"0.png": off}}))
    manifest = load_bundle(old).manifest.model_copy(update=changes)
    manifest = manifest.model_copy(update={"files": hash_files(folder)})
    (folder / MANIFEST).write_text(manifest.sealed_text())
    return folder


def test_golden_images_that_come_out_as_built_let_a_service_start(
    tmp_path: Path, bundle_folder: Path
) -> None:
    folder = rebuilt(tmp_path / "bundle", bundle_folder, golden=1e-5)
    service = Service(ServingConfig(bundle=folder))
    assert service.ready
    service.close()


def test_golden_images_that_come_out_otherwise_stop_it(tmp_path: Path, bundle_folder: Path) -> None:
    folder = rebuilt(tmp_path / "bundle", bundle_folder, golden=2e-3)
    with pytest.raises(BundleError, match=r"golden images come out 2\.0e-03 off"):
        Service(ServingConfig(bundle=folder))


def test_a_changed_bundle_is_not_served(tmp_path: Path, bundle_folder: Path) -> None:
    folder = rebuilt(tmp_path / "bundle", bundle_folder)
    (folder / "card.md").write_text("# another\n")
    with pytest.raises(BundleError, match=r"card\.md: changed"):
        Service(ServingConfig(bundle=folder))


def test_without_a_positive_class_nothing_is_decided(tmp_path: Path, bundle_folder: Path) -> None:
    folder = rebuilt(tmp_path / "bundle", bundle_folder, positive=None)
    service = Service(ServingConfig(bundle=folder))
    file = tiny_bytes(3)
    [found] = asyncio.run(service.predict([file], service.bundle.operating_point()))
    service.close()
    assert (found.decision, found.operating_point) == (None, None)
    members = Runtime(service.bundle).predict([decode(file)])
    top = int(members.probs[0].argmax())
    assert found.spread == pytest.approx(float(members.member_probs[:, 0, top].std()))


def test_without_an_operating_point_nothing_is_decided(service: Service) -> None:
    [found] = asyncio.run(service.predict([tiny_bytes()], None))
    assert (found.decision, found.operating_point) == (None, None)


def test_a_probability_at_the_threshold_is_positive(service: Service) -> None:
    [found] = asyncio.run(service.predict([tiny_bytes()], None))
    default = service.bundle.operating_point()
    assert default is not None
    point = default.model_copy(update={"threshold": found.probabilities["malignant"]})
    [at] = asyncio.run(service.predict([tiny_bytes()], point))
    above = point.model_copy(update={"threshold": float(np.nextafter(point.threshold, 1))})
    [below] = asyncio.run(service.predict([tiny_bytes()], above))
    assert (at.decision, below.decision) == ("positive", "negative")


def test_nothing_heavy_is_done_on_the_event_loop(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def spy(file: bytes, index: int, *, max_pixels: int) -> Any:
        threads.append(threading.current_thread().name)
        return decode(file, max_pixels=max_pixels)

    monkeypatch.setattr("serving.service.decode_image", spy)
    asyncio.run(service.predict([tiny_bytes(), tiny_bytes(1)], None))
    assert len(threads) == 2
    assert all(name.startswith("members") for name in threads)
