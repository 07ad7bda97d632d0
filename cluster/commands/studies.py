"""`consilium audit`, `search`, `report`: from images to a study."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.commands.options import Address, AsJson, Config
from cluster.console import messages, print_json, progress_bars, table
from search.config import load_config

if TYPE_CHECKING:
    from cluster.live import Mode

studies = typer.Typer()


@studies.command()
def audit(config: Config, as_json: AsJson = False, address: Address = None) -> None:
    """Look for what is wrong with an experiment's images, and write a page about it."""
    from cluster.connect import connected
    from search.study.intake import audit_data

    settings = load_config(config)
    folder = settings.output / "audit"
    with connected(address), progress_bars() as progress:
        found = audit_data(settings, folder, progress)
    if as_json:
        print_json(found.audit.to_json() | {"page": str(folder / "audit.html")})
        return
    rows = [
        {"finding": f.kind, "groups": len(f.groups), "policy": f.policy, "what": f.note}
        for f in found.audit.findings
    ]
    table(f"Audit of {found.audit.n_images} images", rows)
    for scheme, counts in found.audit.class_balance.items():
        table(f"Images by {scheme} label", [{"label": k, "images": v} for k, v in counts.items()])
    messages.print(f"page: {folder / 'audit.html'}", soft_wrap=True)


@studies.command()
def search(
    config: Config,
    trials: Annotated[
        str | None, typer.Option(help="40 for so many in all, +10 for so many more")
    ] = None,
    warm_start: Annotated[
        list[str] | None, typer.Option(help="a study folder whose trials the sampler learns from")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="nothing while it works")] = False,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Search for good classifiers; the same command again goes on where it stopped."""
    from cluster.connect import connected
    from cluster.steps import report_study, search_trials
    from ensemble.config import ensemble_config

    if trials is not None and not re.fullmatch(r"\+?[1-9][0-9]{0,5}", trials):
        raise typer.BadParameter(f"--trials is 40, say, or +10, not {trials!r}")
    settings = load_config(config)
    ensemble_config(config, settings)  # a mistake in it is better told before the search
    mode: Mode = "quiet" if quiet else "json" if as_json else "live"
    with connected(address, grows=settings.resources.grow is not None):
        records = search_trials(settings, trials=trials, warm=warm_start or [], mode=mode)
        page = report_study(str(settings.study_folder))
    if as_json:
        found = {"study": str(settings.study_folder), "report": page, "trials": records}
        print_json(found)
        return
    table(f"Study {settings.name}", records)
    messages.print(f"study: {settings.study_folder}", soft_wrap=True)
    messages.print(f"report: {page}", soft_wrap=True)


@studies.command()
def report(
    study: Annotated[str, typer.Argument(help="a study folder, local or s3://")],
    output: Annotated[
        Path | None, typer.Option(help="the page; report.html in the study if absent")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one page about a study: it opens offline."""
    from cluster.steps import report_study

    page = report_study(study, output)
    if as_json:
        print_json({"page": page})
        return
    messages.print(f"page: {page}", soft_wrap=True)
