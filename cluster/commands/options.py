"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Argument(help="an experiment's YAML; see configs/")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
Bundle = Annotated[Path, typer.Argument(help="a bundle folder")]
Prevalence = Annotated[
    list[str] | None,
    typer.Option(help="CLASS=SHARE where the probabilities are to hold; may be said again"),
]
Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS", help="of an existing Ray: auto, host:6379; started here if absent"
    ),
]
JobsAddress = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        help="of a cluster's Jobs API: http://head:8265",
    ),
]
