"""`consilium serve`, `space`, `demo`: endpoints."""

from pathlib import Path
from typing import Annotated

import typer

from cluster.commands.options import Address, Bundle
from cluster.console import messages

services = typer.Typer()


@services.command()
def serve(
    bundle: Bundle,
    host: Annotated[str | None, typer.Option(help="127.0.0.1 if absent")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="8000 if absent")] = None,
    config: Annotated[
        Path | None, typer.Option(help="a YAML of settings: the args of configs/serve.yaml")
    ] = None,
    keys: Annotated[Path | None, typer.Option(help="file that consilium key add made")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="no keys, though other machines can reach the host")
    ] = False,
    haproxy: Annotated[
        bool,
        typer.Option(
            "--haproxy", help="quicker; its ports 9101 and 8404 are open to other machines"
        ),
    ] = False,
    address: Address = None,
) -> None:
    """Serve a bundle over HTTP until Ctrl-C."""
    from cluster.steps import serve_forever, service_settings

    settings = service_settings(
        config, {"host": host, "port": port, "keys": keys, "insecure": insecure}
    )
    serve_forever(settings.of(bundle), address=address, haproxy=haproxy)


@services.command()
def space(
    bundle: Bundle,
    output: Annotated[Path, typer.Argument(help="a folder that is not there yet")],
) -> None:
    """Write a Gradio app, as a Hugging Face Space has it, that scores by a bundle."""
    from serving.space.write import write_space

    folder = write_space(bundle, output)
    messages.print(f"space: {folder}; python -m pip install -r requirements.txt, then app.py")


@services.command()
def demo(
    output: Annotated[Path, typer.Option(help="folder for all that it makes")] = Path(
        "outputs/demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="leave the endpoint up")] = False,
) -> None:
    """Search, ensemble and a live endpoint on synthetic lesions; nothing is downloaded."""
    from cluster.demo import run_demo

    run_demo(output, keep=keep)
