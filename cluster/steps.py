"""The steps of the flow as the command takes them: each calls one package and shows progress."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.connect import connected
from cluster.console import messages, progress_bars
from cluster.live import Mode, watching
from search.config import ExperimentConfig

if TYPE_CHECKING:
    from ensemble.build import Built
    from ensemble.evaluation.results import Evaluation
    from serving.config import ServingConfig

# Imports stand inside the steps: a search need not load what a service is made of.


def search_trials(
    settings: ExperimentConfig,
    *,
    trials: str | None = None,
    warm: Sequence[str] = (),
    mode: Mode = "live",
) -> list[dict[str, Any]]:
    """Search, and tell of each trial, best first. Ray must be running.

    Args:
        trials: "40" for so many in all, "+10" for so many more.
        warm: study folders whose trials the sampler learns from.
        mode: how it shows itself.
    """
    from search.location import open_place
    from search.objectives import minimised
    from search.study.records import StudyFolder
    from search.study.run import run_study

    with watching(mode) as view:
        study = run_study(
            settings,
            trials=trials,
            warm=[StudyFolder(open_place(place)) for place in warm],
            progress=view.progress,
            watch=view.watch,
            say=view.say,
        )
    objective = settings.objectives[0]
    sign = 1 if minimised(objective) else -1
    records = sorted(
        study.records(),
        key=lambda r: (
            r.again or r.status == "failed" or bool(r.violations),
            r.value is None,
            sign * (r.value or 0),
            r.number,
        ),
    )
    return [
        {
            "trial": r.number,
            "status": r.status,
            "recipe": r.recipe,
            "backbone": r.params.backbone,
            "size": r.params.image_size,
            objective: r.value,
            "auroc": r.epochs[r.best_epoch - 1].get("auroc") if r.best_epoch else None,
            "epochs": len(r.epochs),
            "seconds": round(r.seconds, 1),
        }
        for r in records
    ]


def report_study(place: str, output: Path | None = None) -> str:
    """Write a study's page into its folder, or elsewhere; where it is."""
    from search.location import open_place
    from search.report.page import write_study_report
    from search.study.records import StudyFolder
    from search.study.run import earlier_study

    folder = StudyFolder(open_place(place))
    page = output or folder.path / "report.html"
    with earlier_study(folder) as study:
        write_study_report(page, folder, study)
    return str(page)


def build(settings: ExperimentConfig, path: Path, *, force: bool = False) -> "Built":
    """Build the bundle of an experiment that was read from `path`."""
    from ensemble.build import build_ensemble
    from ensemble.config import ensemble_config

    config = ensemble_config(path, settings)
    return build_ensemble(
        settings, config, force=force, step=lambda what: messages.print(f"ensemble: {what}")
    )


def evaluate_bundle(
    folder: Path,
    settings: ExperimentConfig,
    output: Path,
    *,
    prevalence: Mapping[str, float],
    corruptions: int,
) -> "Evaluation":
    """Score the config's data set with a bundle; writes evaluation.json and report.html."""
    from ensemble.bundle import load_bundle
    from ensemble.external import External, evaluate_external
    from search.data.dataset import load_dataset

    bundle = load_bundle(folder)
    how = External(settings.name, prevalence, corruptions)
    with progress_bars() as progress:
        return evaluate_external(
            bundle,
            load_dataset(settings.dataset),
            how,
            output,
            progress=lambda done, n: progress("score", done, n),
        )


def read_prevalence(words: Sequence[str]) -> dict[str, float]:
    """class=share, as given on the command line.

    Raises:
        ConfigError: not of that form.
    """
    from search.errors import ConfigError

    found = {}
    for word in words:
        name, _, share = word.rpartition("=")
        try:
            found[name] = float(share)
        except ValueError:
            name = ""
        if not name:
            raise ConfigError(f"--prevalence is CLASS=SHARE, melanoma=0.02 say, not {word!r}")
    return found


def inspect_bundle(folder: Path, *, check: bool) -> list[tuple[str, list[dict[str, Any]]]]:
    """Tables about a bundle; with `check`, after its golden images came out as at build."""
    from ensemble.bundle import load_bundle
    from ensemble.golden import check_golden
    from ensemble.pages.inspection import inspect_rows
    from ensemble.runtime import Runtime

    bundle = load_bundle(folder)
    tables = inspect_rows(bundle, _metrics(folder))
    if not check:
        return tables
    rows = [
        {
            "engine": engine,
            "largest difference": check_golden(Runtime(bundle, engine=engine), engine),
        }
        for engine in ("onnx", "torch")
    ]
    return [*tables, ("Golden images", rows)]


def compare_bundles(first: Path, second: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """Tables of what differs between two bundles."""
    from ensemble.bundle import load_bundle
    from ensemble.pages.difference import compare

    bundles = load_bundle(first), load_bundle(second)
    return compare(*bundles, _metrics(first), _metrics(second))


def _metrics(folder: Path) -> dict[str, Any]:
    """What a verified bundle's evaluation found."""
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def predict_images(
    bundle_or_url: str,
    images: Sequence[Path],
    operating_point: str | None,
    *,
    prevalence: Mapping[str, float],
    api_key: str | None = None,
) -> list[dict[str, Any]]:
    """A row an image, from an endpoint where an http URL is given, else from a bundle."""
    if bundle_or_url.startswith(("http://", "https://")):
        from serving.client import Client

        with Client(bundle_or_url, api_key=api_key) as client:
            answer = client.predict(*images, operating_point=operating_point, prevalence=prevalence)
        rows = [
            (found.at_prevalence or found.probabilities, found.decision)
            for found in answer.predictions
        ]
    else:
        import numpy as np

        from ensemble.bundle import load_bundle
        from ensemble.runtime import Runtime, at_prevalence
        from search.data.transforms import decode

        bundle = load_bundle(Path(bundle_or_url))
        point = bundle.operating_point(operating_point)
        at_prevalence(bundle, np.empty((0, len(bundle.manifest.classes))), prevalence)
        runtime = Runtime(bundle)
        probs = np.concatenate([runtime.predict([decode(path)]).probs for path in images])
        shown = at_prevalence(bundle, probs, prevalence) if prevalence else probs
        rows = [
            (dict(zip(bundle.manifest.classes, q.tolist(), strict=True)), bundle.decide(p, point))
            for p, q in zip(probs, shown, strict=True)
        ]
    return [
        {"image": str(path), **probabilities, "decision": decision}
        for path, (probabilities, decision) in zip(images, rows, strict=True)
    ]


def service_settings(path: Path | None, given: Mapping[str, Any]) -> "ServingConfig":
    """The service's settings: those of the command line over those of a file.

    Raises:
        ConfigError: the file cannot be read, or a setting is wrong.
    """
    from pydantic import ValidationError

    from search.document import read_document, validate_document
    from search.errors import ConfigError
    from serving.config import ServingConfig

    said = {key: value for key, value in given.items() if value not in (None, False)}
    if path is not None:
        document, tree = read_document(path)
        return validate_document(ServingConfig, document | said, tree, path)
    try:
        return ServingConfig.model_validate(said)
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def serve_forever(settings: "ServingConfig", *, address: str | None, haproxy: bool) -> None:
    """Serve a bundle until Ctrl-C."""
    from serving.environment import serve_environment

    environment = serve_environment(haproxy=haproxy)
    os.environ.update(environment)  # Serve reads it when it is imported, here, too
    from serving.start import check_service, start_service

    check_service(settings)
    with connected(address, environment=environment):
        start_service(settings, blocking=True, announce=announce)


def announce(url: str) -> None:
    """Say where the endpoint is and how to ask it."""
    messages.print(f"serving at {url}; Ctrl-C stops it", soft_wrap=True)
    messages.print(f"  curl -F image=@lesion.jpg {url}/v1/predict", soft_wrap=True)
    messages.print("  educational and research use; not a medical device", soft_wrap=True)
