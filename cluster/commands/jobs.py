"""`consilium submit`, `status`, `logs`, `stop`: Ray Jobs."""

import typer

jobs = typer.Typer()
