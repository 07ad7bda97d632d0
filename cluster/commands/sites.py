"""`consilium sites`: what each site would have got from the others."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.commands.options import Address, AsJson, Config
from cluster.console import messages, print_json, progress_bars, table
from search.config import load_config

if TYPE_CHECKING:
    from ensemble.evaluation.results import Estimate
    from ensemble.sites.results import SiteResult, SitesResult

sites = typer.Typer()

SHOWN = {
    "auroc": "AUROC",
    "nll": "NLL",
    "ece": "ECE",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


@sites.command("sites")
def leave_sites_out(
    config: Config,
    by: Annotated[
        str | None, typer.Option(help="column of the data; source or site if absent")
    ] = None,
    trial: Annotated[
        int | None, typer.Option(min=0, help="whose params; the best finished one if absent")
    ] = None,
    min_cases: Annotated[
        int, typer.Option(min=10, help="images that a site needs, with 5 groups of each class")
    ] = 20,
    output: Annotated[
        Path | None, typer.Option(help="folder for sites/, sites.json and sites.html")
    ] = None,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Leave out one site at a time: would it hold where no training image came from?"""
    from cluster.connect import connected
    from ensemble.config import ensemble_config
    from ensemble.pages.sites import write_sites_page
    from ensemble.sites.plan import plan_sites
    from ensemble.sites.tasks import evaluate_sites, finished_sites

    settings = load_config(config)
    chosen = ensemble_config(config, settings)
    plan = plan_sites(settings, chosen, by=by, trial=trial, min_cases=min_cases)
    folder = output or settings.output
    is_done = len(finished_sites(plan, folder)) == len(plan.column.left_out)
    grows = settings.resources.grow is not None
    ray = nullcontext() if is_done else connected(address, grows=grows)
    with ray, progress_bars() as progress:
        found = evaluate_sites(
            plan,
            folder,
            progress=lambda done, n: progress("sites", done, n),
            say=lambda result: messages.print(_said(result)),
        )
    page = folder / "sites.html"
    write_sites_page(page, found)
    if as_json:
        print_json(found.model_dump(mode="json") | {"page": str(page)})
        return
    _show(found)
    messages.print(f"page: {page}", soft_wrap=True)


def _said(result: "SiteResult") -> str:
    auroc = _text(result.away.metrics.get("auroc"))
    return f"{result.site}: AUROC {auroc}, {result.away.n} images, {result.seconds:.0f} s"


def _show(found: "SitesResult") -> None:
    """A row a site, then the mean and the worst."""
    rows: list[dict[str, Any]] = [
        {"site": s.site, "n": s.away.n, "positive": s.away.n_positive}
        | {name: _text(s.away.metrics.get(key)) for key, name in SHOWN.items()}
        | {"held": s.held}
        for s in found.sites
    ]
    blank: dict[str, Any] = dict.fromkeys(("n", "positive"))
    means = {name: _text(found.mean.get(key)) for key, name in SHOWN.items()}
    rows.append({"site": "mean of sites", **blank, **means, "held": None})
    worst = {key: each.estimate for key, each in found.worst.items()}
    lowest = {name: _text(worst.get(key)) for key, name in SHOWN.items()}
    rows.append({"site": "worst of sites", **blank, **lowest, "held": None})
    table(f"{found.name}: {found.column} left out one at a time, 95% intervals", rows)
    for site, reason in found.not_left_out.items():
        messages.print(f"{site}: never left out, always among the others: {reason}")
    if found.n_unknown:
        messages.print(
            f"{found.n_unknown} images of unknown {found.column}: always among the others"
        )


def _text(estimate: "Estimate | None") -> str:
    from ensemble.pages.forest import written

    return "–" if estimate is None else written(estimate)
