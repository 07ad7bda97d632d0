"""`consilium key`: make, remove and list the API keys of a service."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.console import messages, print_json, table

if TYPE_CHECKING:
    from serving.http import keys

keys_app = typer.Typer(
    help="API keys of a service: a file of hashes that it reads again when it changes.",
    no_args_is_help=True,
)


class Scope(StrEnum):
    """Typer takes no list of a Literal."""

    predict = "predict"
    admin = "admin"


Id = Annotated[str, typer.Argument(metavar="ID", help="a name for the key: a-z, 0-9 and -")]
File = Annotated[Path, typer.Option("--file", help="of hashed keys; serving.keys names it")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]


@keys_app.command()
def add(
    name: Id,
    file: File,
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="predict if absent; admin implies it; may be said again"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once; the file keeps its hash only."""
    from serving.http.keys import add_key

    scopes: list[keys.Scope] = [each.value for each in scope or [Scope.predict]]
    secret = add_key(file, name, scopes)
    if as_json:
        print_json({"id": name, "scopes": scopes, "file": str(file), "key": secret})
    else:
        print(secret)  # noqa: T201
    messages.print(f"key {name} is in {file}; it is shown this once only", soft_wrap=True)


@keys_app.command()
def remove(name: Id, file: File, as_json: AsJson = False) -> None:
    """Remove a key; services that read the file refuse it a second later."""
    from serving.http.keys import list_keys, remove_key

    remove_key(file, name)
    left = list_keys(file)
    if as_json:
        print_json({"removed": name, "file": str(file), "left": len(left)})
        return
    messages.print(f"key {name} is removed; {len(left)} left in {file}", soft_wrap=True)
    if not left:
        messages.print("services that run refuse everybody now, and none starts with this file")


@keys_app.command("list")
def show(file: File, as_json: AsJson = False) -> None:
    """List the keys of a file; no secret is in it."""
    from serving.http.keys import list_keys

    rows = [_row(key) for key in list_keys(file)]
    if as_json:
        print_json({"keys": rows})
        return
    table(f"Keys in {file}", rows)


def _row(key: "keys.Key") -> dict[str, object]:
    return {"id": key.id, "scopes": " ".join(key.scopes), "created": key.created.isoformat()}
