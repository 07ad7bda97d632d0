"""`consilium doctor`: whether a machine or a cluster is fit."""

import typer

doctors = typer.Typer()
