"""`consilium pipeline`: from a config to a service that answers by a better bundle."""

import typer

pipelines = typer.Typer()
