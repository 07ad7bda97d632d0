"""The smallest real things that tests share."""

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from ensemble.bundle import MANIFEST, Bundle, building, hash_files
from ensemble.calibration.calibrators import Temperature
from ensemble.export import export_onnx
from ensemble.golden import draw_golden, write_expected
from ensemble.manifest import Manifest, Member, Network
from ensemble.profile import Gauge, Profile, build_profile, watched
from ensemble.runtime import Runtime
from search.config import WeightsConfig
from search.params import Params
from search.training.backbones import build_classifier
from tests.points import a_point

CLASSES = ["benign", "malignant"]


def tiny_image(seed: int = 0, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """A smooth random RGB image (width, height)."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def tiny_bytes(seed: int = 0, *, kind: str = "PNG") -> bytes:
    """That image as a file's bytes."""
    file = BytesIO()
    tiny_image(seed).save(file, kind)
    return file.getvalue()


def write_tiny_bundle(folder: Path, *, n_members: int = 2, name: str = "tiny") -> Path:
    """A real bundle of untrained 16-pixel CNNs: loadable, quick, deterministic."""
    with building(folder) as scratch:
        members = [_write_member(scratch, index, n_members) for index in range(n_members)]
        (scratch / "card.md").write_text("# tiny\n")
        manifest = Manifest(
            name=name,
            version="1",
            created=datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
            classes=CLASSES,
            positive="malignant",
            members=members,
            calibrator=Temperature(temperature=1.3),
            operating_points=[a_point("sensitivity_0.95", 0.3), a_point("balanced", 0.5)],
            prevalence={"benign": 0.6, "malignant": 0.4},
            provenance={"study": "tiny"},
            files={},
        )
        draw_golden(scratch, count=2)
        manifest = manifest.model_copy(update={"profile": _profile(Bundle(scratch, manifest))})
        bundle = Bundle(scratch, manifest)
        write_expected(scratch, {"onnx": Runtime(bundle), "torch": Runtime(bundle, engine="torch")})
        (scratch / "metrics.json").write_text("{}\n")
        manifest = manifest.model_copy(update={"files": hash_files(scratch)})
        (scratch / MANIFEST).write_text(manifest.sealed_text())
    return folder


def _profile(bundle: Bundle) -> Profile:
    """Of a few tiny images, as a real bundle's is of the held-back ones."""
    images = [tiny_image(seed) for seed in range(20)]
    gauge = Gauge(bundle.manifest.members[0].preprocessing)
    probs = Runtime(bundle).predict([gauge(image, i) for i, image in enumerate(images)]).probs
    return build_profile(
        gauge.columns(), watched(probs, bundle.positive_index), bundle.manifest.members[0].name
    )


def _write_member(folder: Path, index: int, n_members: int) -> Member:
    params = Params(backbone="cnn", image_size=16, hidden=4, dropout=0)
    classifier = build_classifier(params, 2, WeightsConfig(), seed=index).eval()
    (folder / "members").mkdir(exist_ok=True)
    weights, graph = f"members/cnn_{index}.safetensors", f"members/cnn_{index}.onnx"
    save_file(classifier.state_dict(), folder / weights)
    pixels = np.random.default_rng(index).integers(0, 256, (2, 16, 16, 3), np.uint8)
    return Member(
        name=f"cnn_{index}",
        trial=index,
        params=params,
        preprocessing=classifier.preprocessing,
        weight=1 / n_members,
        networks=[
            Network(
                fold=0,
                weights_file=weights,
                onnx_file=graph,
                parity=export_onnx(classifier, folder / graph, pixels=pixels),
            )
        ],
        params_m=0.01,
        latency_ms=0.1,
    )
