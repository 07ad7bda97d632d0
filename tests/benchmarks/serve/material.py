"""What is served and sent: a bundle of two untrained MobileNetV2s, and photographs of lesions.

What a network has learned changes nothing about its speed, so these need no training and run
anywhere. Every file differs in its bytes: equal images in flight would be scored once.
"""

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from ensemble.bundle import MANIFEST, Bundle, building, hash_files
from ensemble.calibration.calibrators import Identity
from ensemble.export import export_onnx
from ensemble.golden import draw_golden, write_expected
from ensemble.manifest import Manifest, Member, Network
from ensemble.quantise import quantise_onnx
from ensemble.runtime import Engine, Runtime
from search.config import WeightsConfig
from search.data.synthetic import draw_lesion
from search.data.transforms import Preprocessing, decode, prepare
from search.params import Params
from search.training.backbones import build_classifier
from tests.points import a_point

Pixels = NDArray[np.uint8]
BACKBONES = ("mobilenetv2_035", "mobilenetv2_100")
SIDE = 224
WIDTH, HEIGHT = 450, 338  # of many dermoscopy archives' JPEGs
DRAWN, FILES = 24, 480  # more files than requests are ever in flight
COMMENT = b"\xff\xfe"  # the JPEG segment that decoders skip


def write_images(folder: Path, *, drawn: int = DRAWN, files: int = FILES) -> Path:
    """Write JPEGs of about 25 kB: few pictures, each many times with another comment."""
    folder.mkdir(parents=True)
    pictures = [_photograph(seed) for seed in range(drawn)]
    for index in range(files):
        (folder / f"{index:04}.jpg").write_bytes(_remarked(pictures[index % drawn], index))
    return folder


def write_bundle(folder: Path, images: Path, *, seed: int = 0, side: int = SIDE) -> Path:
    """Write a bundle of untrained members, with 8-bit graphs; another seed gives another one."""
    pixels = _pixels(images, side)
    with building(folder) as scratch:
        (scratch / "members").mkdir()
        members = [_write_member(scratch, b, pixels, seed=seed) for b in BACKBONES]
        (scratch / "card.md").write_text("# A benchmark's bundle\n")
        (scratch / "metrics.json").write_text("{}\n")
        manifest = Manifest(
            name="benchmark",
            version=str(seed + 1),
            created=datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
            classes=["benign", "malignant"],
            positive="malignant",
            members=members,
            calibrator=Identity(),
            operating_points=[a_point("benchmark", 0.5)],
            prevalence={"benign": 0.5, "malignant": 0.5},
            provenance={"study": "none: untrained"},
            files={},
        )
        draw_golden(scratch, count=2)
        bundle = Bundle(scratch, manifest)
        engines: tuple[Engine, ...] = ("onnx", "int8", "torch")
        write_expected(scratch, {e: Runtime(bundle, engine=e) for e in engines})
        manifest = manifest.model_copy(update={"files": hash_files(scratch)})
        (scratch / MANIFEST).write_text(manifest.sealed_text())
    return folder


def _write_member(folder: Path, backbone: str, pixels: Pixels, *, seed: int) -> Member:
    params = Params(backbone=backbone, image_size=pixels.shape[1], hidden=0, dropout=0)
    classifier = build_classifier(params, 2, WeightsConfig(), seed=seed).eval()
    weights, graph, int8 = (
        f"members/{backbone}.{kind}" for kind in ("safetensors", "onnx", "int8.onnx")
    )
    save_file(classifier.state_dict(), folder / weights)
    network = Network(
        fold=None,
        weights_file=weights,
        onnx_file=graph,
        parity=export_onnx(classifier, folder / graph, pixels=pixels[:2]),
        int8_file=int8,
        int8_off=quantise_onnx(folder / graph, folder / int8, pixels=pixels),
    )
    return Member(
        name=backbone,
        trial=BACKBONES.index(backbone),
        params=params,
        preprocessing=classifier.preprocessing,
        weight=1 / len(BACKBONES),
        networks=[network],
        params_m=sum(p.numel() for p in classifier.parameters()) / 1e6,
        latency_ms=1,
    )


def _photograph(seed: int) -> bytes:
    pixels = draw_lesion(np.random.default_rng(seed), malignant=seed % 2 == 1, size=WIDTH)
    top = (WIDTH - HEIGHT) // 2
    file = BytesIO()
    Image.fromarray(pixels[top : top + HEIGHT]).save(file, "JPEG", quality=90)
    return file.getvalue()


def _remarked(jpeg: bytes, index: int) -> bytes:
    """The same picture with a comment behind its first marker."""
    text = f"{index:08}".encode()
    return jpeg[:2] + COMMENT + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def _pixels(images: Path, side: int) -> Pixels:
    """Some of the images as members see them, (16, side, side, 3)."""
    how = Preprocessing(size=side, mean=(0, 0, 0), std=(1, 1, 1))
    files = sorted(images.glob("*.jpg"))
    return np.stack([prepare(decode(files[i % len(files)]), how) for i in range(16)])
