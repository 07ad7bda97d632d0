"""`consilium score`: a table of images through a bundle."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cluster.commands.options import Address, AsJson, Bundle, Prevalence
from cluster.console import messages, print_json, progress_bars, table

if TYPE_CHECKING:
    from cluster.found import Cluster

batch = typer.Typer()


@batch.command()
def score(  # noqa: PLR0913, PLR0917  # typer makes an option of each
    bundle: Bundle,
    images_table: Annotated[
        str, typer.Argument(metavar="TABLE", help="CSV or Parquet with a row an image; or s3://…")
    ],
    images: Annotated[
        list[str] | None,
        typer.Option(help="folder or s3:// prefix of the images; the table's own if absent"),
    ] = None,
    column: Annotated[str, typer.Option(help="of the images' paths or names")] = "image",
    output: Annotated[str, typer.Option(help=".parquet or .csv")] = "scores.parquet",
    operating_point: Annotated[str | None, typer.Option(help="name; the first if absent")] = None,
    prevalence: Prevalence = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="processes; one a CPU, or a share of a GPU, if absent")
    ] = None,
    gpus: Annotated[float, typer.Option(min=0, help="share of a GPU that each worker has")] = 0.0,
    engine: Annotated[
        Literal["onnx", "int8", "torch"], typer.Option(help="what computes the members")
    ] = "onnx",
    shard: Annotated[
        int | None,
        typer.Option(min=1, max=65_536, help="rows kept together; 256, of a small table fewer"),
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Score every image of a table; the same again goes on where it stopped."""
    from cluster.batch.order import Asked, read_order
    from cluster.batch.quiet import quietly
    from cluster.batch.score import score as score_order
    from cluster.connect import connected
    from cluster.steps import read_prevalence

    asked = Asked(
        bundle=bundle,
        table=images_table,
        output=output,
        images=images or [],
        column=column,
        operating_point=operating_point,
        prevalence=read_prevalence(prevalence or []),
        engine=engine,
        shard=shard,
        workers=workers,
        gpus=gpus,
    )
    order = read_order(asked, here=address is None)

    def connect() -> "AbstractContextManager[Cluster]":
        return connected(address, client=True)

    with progress_bars() as progress:
        about = score_order(
            order,
            connect=connect if address else lambda: quietly(connect),  # of a cluster more is said
            progress=lambda done, n: progress("score", done, n),
        )
    if as_json:
        print_json(about)
        return
    rows = [{"what": name, "images": number} for name, number in counts_of(about).items()]
    table("Scores", rows)
    messages.print(f"scores: {output}; {about['note']}", soft_wrap=True)
    if about["images_s"]:
        messages.print(f"{about['images_s']:.0f} images/s, with the start")


def counts_of(about: dict[str, dict[str, int]]) -> dict[str, object]:
    """The counts of a scoring by what they count."""
    errors = {f"error: {name}": number for name, number in about["errors"].items()}
    decisions = about["decisions"] or {}
    return {"all": about["images"], **decisions, "novel": about["novel"], **errors}
