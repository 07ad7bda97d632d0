"""`consilium ensemble`, `evaluate`, `inspect`, `diff`, `predict`: making a bundle and using it."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.options import AsJson, Bundle, Config, Prevalence
from cluster.console import (
    messages,
    print_json,
    show_evaluation,
    show_leaderboard,
    show_tables,
    table,
)
from search.config import load_config

bundles = typer.Typer()


@bundles.command()
def ensemble(
    config: Config,
    force: Annotated[
        bool, typer.Option("--force", help="write the bundle though a gate failed; it says so")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a study into one calibrated bundle, and evaluate it on the sealed test."""
    from cluster.steps import build

    settings = load_config(config)
    built = build(settings, config, force=force)
    if as_json:
        print_json(
            {
                "bundle": str(settings.bundle_folder),
                "digest": built.bundle.manifest.digest,
                "test": built.evaluation.model_dump(mode="json"),
                "leaderboard": [row.model_dump(mode="json") for row in built.leaderboard],
                "verdicts": [verdict.model_dump(mode="json") for verdict in built.verdicts],
            }
        )
        return
    show_leaderboard(settings.name, built)


@bundles.command()
def evaluate(
    bundle: Bundle,
    config: Config,
    as_json: AsJson = False,
    output: Annotated[Path | None, typer.Option(help="folder for the page and the JSON")] = None,
    prevalence: Prevalence = None,
    corruptions: Annotated[
        int, typer.Option(min=0, help="so many of the images are made worse, in 25 ways")
    ] = 0,
) -> None:
    """Score a labelled data set that the config names, with a bundle."""
    from cluster.steps import evaluate_bundle, read_prevalence

    settings = load_config(config)
    folder = output or settings.output / "evaluation"
    shares = read_prevalence(prevalence or [])
    found = evaluate_bundle(bundle, settings, folder, prevalence=shares, corruptions=corruptions)
    if as_json:
        print_json(found.model_dump(mode="json") | {"page": str(folder / "report.html")})
        return
    if found.skipped:
        problem = next(iter(found.skipped.values()))
        messages.print(f"{len(found.skipped)} images skipped, the first: {problem}")
    if found.seen:
        messages.print(f"{found.seen} images left out: the bundle was made from them")
    show_evaluation(found)
    messages.print(f"page: {folder / 'report.html'}", soft_wrap=True)


@bundles.command()
def inspect(
    bundle: Bundle,
    check: Annotated[
        bool, typer.Option("--check", help="score the golden images with both engines")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle, and print what it is and what it promises."""
    from cluster.steps import inspect_bundle

    show_tables(inspect_bundle(bundle, check=check), as_json=as_json)


@bundles.command()
def diff(first: Bundle, second: Bundle, as_json: AsJson = False) -> None:
    """Print what differs between two bundles."""
    from cluster.steps import compare_bundles

    show_tables(compare_bundles(first, second), as_json=as_json)


@bundles.command()
def predict(
    bundle_or_url: Annotated[str, typer.Argument(help="a bundle folder, or an endpoint's URL")],
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG or WebP files")],
    operating_point: Annotated[str | None, typer.Option(help="name; the first if absent")] = None,
    prevalence: Prevalence = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="CONSILIUM_API_KEY", help="of an endpoint that asks for one"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score images with a bundle on this machine, or with an endpoint."""
    from cluster.steps import predict_images, read_prevalence

    shares = read_prevalence(prevalence or [])
    rows = predict_images(
        bundle_or_url, images, operating_point, prevalence=shares, api_key=api_key
    )
    if as_json:
        print_json({"images": rows})
        return
    table("Educational and research use; not a medical device", rows)
