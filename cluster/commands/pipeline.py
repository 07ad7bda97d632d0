"""`consilium pipeline`: from a config to a service that answers by a better bundle."""

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands.options import Address, AsJson, Config
from cluster.console import messages, print_json, table
from search.config import load_config

if TYPE_CHECKING:
    from cluster.pipeline.flow import Report

pipelines = typer.Typer()


class Until(StrEnum):
    """Typer takes no list of a Literal."""

    search = "search"
    ensemble = "ensemble"
    evaluate = "evaluate"
    gate = "gate"
    canary = "canary"


@pipelines.command()
def pipeline(
    config: Config,
    until: Annotated[Until, typer.Option(help="the last step")] = Until.canary,
    trials: Annotated[
        str | None, typer.Option(help="40 for so many in all, +10 for so many more")
    ] = None,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Search, ensemble, evaluate, gate, canary: promoted or taken back by rule.

    A step whose inputs have not changed is skipped; the same command again goes on.
    """
    from cluster.pipeline.config import pipeline_config
    from cluster.pipeline.flow import run_pipeline
    from cluster.pipeline.work import Work
    from ensemble.config import ensemble_config

    if trials is not None and not re.fullmatch(r"\+?[1-9][0-9]{0,5}", trials):
        raise typer.BadParameter(f"--trials is 40, say, or +10, not {trials!r}")
    settings = load_config(config)
    ensemble_config(config, settings)  # a mistake in it is better told before the search
    work = Work(
        config,
        settings,
        pipeline_config(config, settings),
        address=address,
        trials=trials,
        mode="json" if as_json else "live",
        say=lambda what: messages.print(what, soft_wrap=True),
    )
    report = run_pipeline(work, until=until.value)
    if as_json:
        print_json({"name": settings.name, **_document(report)})
    else:
        rows = [_row(row) for row in _document(report)["steps"]]
        table(f"Pipeline {settings.name}", rows)
    if report.error is not None:
        raise report.error


def _document(report: "Report") -> dict[str, Any]:
    from dataclasses import asdict

    error = None if report.error is None else " ".join(str(report.error).split())
    return {"steps": [asdict(row) for row in report.rows], "error": error}


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("step", "status", "why")} | {"s": f"{row['seconds']:.1f}"}
