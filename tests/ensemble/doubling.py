"""A bundle whose graph doubles a number: enough to be read, changed and refused."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from ensemble.bundle import MANIFEST, building, hash_files, load_bundle
from ensemble.calibration.calibrators import Temperature
from ensemble.manifest import Manifest, Member, Network
from search.data.transforms import Preprocessing
from search.errors import BundleError
from search.params import Params
from tests.points import a_point

GRAPH = "members/cnn_0.onnx"
WEIGHTS = "members/cnn_0.safetensors"


def tensor(name: str = "scale", *, location: str | None = None) -> Any:
    made = helper.make_tensor(name, TensorProto.FLOAT, [1], [2.0])
    if location is not None:
        made.ClearField("float_data")
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key="location", value=location)
    return made


def graph(*, initialisers: list[Any], nodes: list[Any] | None = None) -> Any:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    steps = nodes or [helper.make_node("Mul", ["x", "scale"], ["y"])]
    return helper.make_graph(steps, "tiny", ends[:1], ends[1:], initialisers)


def write_graph(path: Path, **parts: Any) -> None:
    path.write_bytes(helper.make_model(graph(**parts)).SerializeToString())


def write_bundle(folder: Path, *, name: str = "tiny") -> Path:
    """A bundle whose graph doubles a number: all that reading it needs."""
    with building(folder) as scratch:
        (scratch / "members").mkdir()
        save_file({"scale": np.array([2.0], np.float32)}, scratch / WEIGHTS)
        write_graph(scratch / GRAPH, initialisers=[tensor()])
        (scratch / "card.md").write_text("# tiny\n")
        (scratch / "metrics.json").write_text("{}\n")
        (scratch / "golden").mkdir()
        (scratch / "golden" / "probs.json").write_text("{}\n")
        params = Params(backbone="cnn", image_size=16)
        member = Member(
            name="cnn_0",
            trial=0,
            params=params,
            preprocessing=Preprocessing(size=16, mean=(0, 0, 0), std=(1, 1, 1)),
            weight=1,
            networks=[Network(fold=0, weights_file=WEIGHTS, onnx_file=GRAPH, parity=0)],
            params_m=0.1,
            latency_ms=1,
        )
        manifest = Manifest(
            name=name,
            version="1",
            created=datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
            classes=["benign", "malignant"],
            positive="malignant",
            members=[member],
            calibrator=Temperature(temperature=1.3),
            operating_points=[a_point("sensitivity_0.95", 0.3), a_point("balanced", 0.5)],
            prevalence={"benign": 0.6, "malignant": 0.4},
            provenance={"study": "tiny"},
            files=hash_files(scratch),
        )
        (scratch / MANIFEST).write_text(manifest.sealed_text())
    return folder


def change(folder: Path, key: str, value: object, *, seal: bool = False) -> None:
    path = folder / MANIFEST
    document = json.loads(path.read_text()) | {key: value}
    if seal:  # as one who knows how would
        del document["digest"]
        text = json.dumps(document, indent=1) + "\n"
        document["digest"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(document, indent=1) + "\n")


def refused(folder: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(folder)
    assert "\n" not in str(caught.value)
