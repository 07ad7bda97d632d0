"""`consilium sites`: what each site would have got from the others."""

import typer

sites = typer.Typer()
