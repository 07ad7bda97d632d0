"""`consilium score`: a table of images through a bundle."""

import typer

batch = typer.Typer()
