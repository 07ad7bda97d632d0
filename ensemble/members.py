"""The members of a bundle: their networks written, exported and timed."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ensemble.bundle import Bundle
from ensemble.candidates import Candidates, candidate_pixels, load_classifier
from ensemble.config import EnsembleConfig, Views
from ensemble.export import export_onnx
from ensemble.manifest import Manifest, Member, Network
from ensemble.quantise import FEWEST, quantise_onnx
from ensemble.refit import refit_network
from ensemble.runtime import Runtime
from ensemble.views import N_VIEWS
from search.config import ExperimentConfig
from search.errors import StudyError
from search.study.records import TrialRecord
from search.tables import write_tensors
from search.training.backbones import Classifier, preprocessing_of

PASSES = 9
CALIBRATION_IMAGES = 64  # of the 8-bit graphs' ranges


def write_members(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    candidates: Candidates,
    weights: Sequence[float],
    folder: Path,
    *,
    images: pd.DataFrame,
    step: Callable[[str], None] = lambda _: None,
) -> list[Member]:
    """Write the networks of every candidate with a weight as safetensors and ONNX.

    Args:
        weights: by candidate; 0 is left out.
        folder: of the bundle that is being built.
        images: held-back ones, for the parity of the export and the ranges of 8-bit graphs.

    Raises:
        BundleError: a graph is not what torch computes.
    """
    (folder / "members").mkdir(exist_ok=True)
    chosen = [i for i, weight in enumerate(weights) if weight > 0]
    some = images.sample(min(CALIBRATION_IMAGES, len(images)), random_state=config.seed)
    if ensemble.int8 and len(some) < FEWEST:
        raise StudyError(
            f"8-bit members need {FEWEST} held-back images, there are {len(some)}; raise "
            "splits.calibration, or set ensemble.int8 to false"
        )
    members = []
    for done, i in enumerate(chosen):
        record = candidates.records[i]
        folds: list[int | None] = [None] if ensemble.refit else list(candidates.networks[i])
        step(f"member {done + 1} of {len(chosen)}: {record.params.backbone}, networks {len(folds)}")
        pixels = candidate_pixels(config, record, some)
        networks = [_write(config, ensemble, record, fold, folder, pixels) for fold in folds]
        n_params = sum(p.numel() for p in load_classifier(config, record).parameters())
        members.append(
            Member(
                name=f"{record.params.backbone}_{record.number:05d}",
                trial=record.number,
                recipe=record.recipe,
                params=record.params,
                preprocessing=preprocessing_of(record.params),
                weight=weights[i],
                networks=networks,
                params_m=n_params * len(networks) / 1e6,
                latency_ms=0.0,
            )
        )
    return members


def with_latencies(folder: Path, manifest: Manifest) -> Manifest:
    """The members with the time each takes for one image on one thread, all its networks."""
    runtime = Runtime(Bundle(folder, manifest))
    members = [
        member.model_copy(update={"latency_ms": _latency(runtime, i)})
        for i, member in enumerate(manifest.members)
    ]
    return manifest.model_copy(update={"members": members})


def with_views(manifest: Manifest, views: Views) -> Manifest:
    """The manifest with test-time augmentation, which every member pays for."""
    members = [
        member.model_copy(update={"latency_ms": member.latency_ms * N_VIEWS[views]})
        for member in manifest.members
    ]
    return manifest.model_copy(update={"test_time_augmentation": views, "members": members})


def _latency(runtime: Runtime, index: int) -> float:
    member = runtime.bundle.manifest.members[index]
    side = member.preprocessing.size
    blank = np.zeros((1, side, side, 3), np.uint8)
    found = []
    for _ in range(PASSES):
        start = perf_counter()
        for network in range(len(member.networks)):
            runtime.network_outputs(index, network, blank)
        found.append(perf_counter() - start)
    return round(1e3 * statistics.median(found), 3)


def _write(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    record: TrialRecord,
    fold: int | None,
    folder: Path,
    pixels: NDArray[np.uint8],
) -> Network:
    classifier, seconds = _classifier(config, record, fold)
    part = "refit" if fold is None else f"fold_{fold}"
    stem = f"members/{record.params.backbone}_{record.number:05d}_{part}"
    write_tensors(folder / f"{stem}.safetensors", classifier.state_dict())
    parity = export_onnx(classifier, folder / f"{stem}.onnx", pixels=pixels[:8])
    int8 = f"{stem}.int8.onnx" if ensemble.int8 else None
    off = int8 and quantise_onnx(folder / f"{stem}.onnx", folder / int8, pixels=pixels)
    return Network(
        fold=fold,
        weights_file=f"{stem}.safetensors",
        onnx_file=f"{stem}.onnx",
        parity=parity,
        int8_file=int8,
        int8_off=off or None,
        refit_seconds=seconds,
    )


def _classifier(
    config: ExperimentConfig, record: TrialRecord, fold: int | None
) -> tuple[Classifier, float | None]:
    if fold is not None:
        return load_classifier(config, record, fold=fold), None
    refitted = refit_network(config, record)
    return refitted.classifier, round(refitted.seconds, 1)
