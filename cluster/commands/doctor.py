"""`consilium doctor`: whether a machine or a cluster is fit."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.options import Address, AsJson
from cluster.console import print_json, table
from search.config import load_config

doctors = typer.Typer()


@doctors.command()
def doctor(
    config: Annotated[
        Path | None,
        typer.Argument(help="an experiment's YAML: then its data, study and weights count, too"),
    ] = None,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Look at this machine, or at every node of a cluster, and say what to mend."""
    from cluster.doctor.rounds import examine, verdict

    settings = None if config is None else load_config(config)
    rows = examine(settings, address)
    if as_json:
        well = all(row.finding.level != "broken" for row in rows)
        print_json({"ok": well, "checks": [row.to_json() for row in rows]})
    else:
        table(f"{len(rows)} checks", [row.shown() for row in rows])
    verdict(rows)
