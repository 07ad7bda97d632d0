"""The `consilium` command: parse, call one function, print."""

import errno
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from cluster.connect import connected
from cluster.console import (
    messages,
    print_json,
    progress_bars,
    show_evaluation,
    show_leaderboard,
    show_tables,
    table,
)
from cluster.keys import keys_app
from cluster.live import Mode
from search.config import load_config
from search.errors import ConsiliumError

app = typer.Typer(
    help="Search image classifiers, ensemble and calibrate the best, serve them over HTTP. "
    "Educational and research use; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(keys_app, name="key")

INTERRUPTED = 130  # what typer returns in the place of a Ctrl-C
Config = Annotated[Path, typer.Argument(help="an experiment's YAML; see configs/")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
Bundle = Annotated[Path, typer.Argument(help="a bundle folder")]
Prevalence = Annotated[
    list[str] | None,
    typer.Option(help="CLASS=SHARE where the probabilities are to hold; may be said again"),
]
Address = Annotated[str | None, typer.Option(help="of an existing Ray cluster")]


@app.command()
def audit(config: Config, as_json: AsJson = False, address: Address = None) -> None:
    """Look for what is wrong with an experiment's images, and write a page about it."""
    from search.study.intake import audit_data

    settings = load_config(config)
    folder = settings.output / "audit"
    with connected(address), progress_bars() as progress:
        found = audit_data(settings, folder, progress)
    if as_json:
        print_json(found.audit.to_json() | {"page": str(folder / "audit.html")})
        return
    rows = [
        {"finding": f.kind, "groups": len(f.groups), "policy": f.policy, "what": f.note}
        for f in found.audit.findings
    ]
    table(f"Audit of {found.audit.n_images} images", rows)
    for scheme, counts in found.audit.class_balance.items():
        table(f"Images by {scheme} label", [{"label": k, "images": v} for k, v in counts.items()])
    messages.print(f"page: {folder / 'audit.html'}", soft_wrap=True)


@app.command()
def search(
    config: Config,
    trials: Annotated[
        str | None, typer.Option(help="40 for so many in all, +10 for so many more")
    ] = None,
    warm_start: Annotated[
        list[str] | None, typer.Option(help="a study folder whose trials the sampler learns from")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="nothing while it works")] = False,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Search for good classifiers; the same command again goes on where it stopped."""
    from cluster.steps import report_study, search_trials
    from ensemble.config import ensemble_config

    if trials is not None and not re.fullmatch(r"\+?[1-9][0-9]{0,5}", trials):
        raise typer.BadParameter(f"--trials is 40, say, or +10, not {trials!r}")
    settings = load_config(config)
    ensemble_config(config, settings)  # a mistake in it is better told before the search
    mode: Mode = "quiet" if quiet else "json" if as_json else "live"
    with connected(address):
        records = search_trials(settings, trials=trials, warm=warm_start or [], mode=mode)
        page = report_study(str(settings.study_folder))
    if as_json:
        found = {"study": str(settings.study_folder), "report": page, "trials": records}
        print_json(found)
        return
    table(f"Study {settings.name}", records)
    messages.print(f"study: {settings.study_folder}", soft_wrap=True)
    messages.print(f"report: {page}", soft_wrap=True)


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="a study folder, local or s3://")],
    output: Annotated[
        Path | None, typer.Option(help="the page; report.html in the study if absent")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one page about a study: it opens offline."""
    from cluster.steps import report_study

    page = report_study(study, output)
    if as_json:
        print_json({"page": page})
        return
    messages.print(f"page: {page}", soft_wrap=True)


@app.command()
def ensemble(
    config: Config,
    force: Annotated[
        bool, typer.Option("--force", help="write the bundle though a gate failed; it says so")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a study into one calibrated bundle, and evaluate it on the sealed test."""
    from cluster.steps import build

    settings = load_config(config)
    built = build(settings, config, force=force)
    if as_json:
        print_json(
            {
                "bundle": str(settings.bundle_folder),
                "digest": built.bundle.manifest.digest,
                "test": built.evaluation.model_dump(mode="json"),
                "leaderboard": [row.model_dump(mode="json") for row in built.leaderboard],
                "verdicts": [verdict.model_dump(mode="json") for verdict in built.verdicts],
            }
        )
        return
    show_leaderboard(settings.name, built)


@app.command()
def evaluate(
    bundle: Bundle,
    config: Config,
    as_json: AsJson = False,
    output: Annotated[Path | None, typer.Option(help="folder for the page and the JSON")] = None,
    prevalence: Prevalence = None,
    corruptions: Annotated[
        int, typer.Option(min=0, help="so many of the images are made worse, in 25 ways")
    ] = 0,
) -> None:
    """Score a labelled data set that the config names, with a bundle."""
    from cluster.steps import evaluate_bundle, read_prevalence

    settings = load_config(config)
    folder = output or settings.output / "evaluation"
    shares = read_prevalence(prevalence or [])
    found = evaluate_bundle(bundle, settings, folder, prevalence=shares, corruptions=corruptions)
    if as_json:
        print_json(found.model_dump(mode="json") | {"page": str(folder / "report.html")})
        return
    if found.skipped:
        problem = next(iter(found.skipped.values()))
        messages.print(f"{len(found.skipped)} images skipped, the first: {problem}")
    if found.seen:
        messages.print(f"{found.seen} images left out: the bundle was made from them")
    show_evaluation(found)
    messages.print(f"page: {folder / 'report.html'}", soft_wrap=True)


@app.command()
def inspect(
    bundle: Bundle,
    check: Annotated[
        bool, typer.Option("--check", help="score the golden images with both engines")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle, and print what it is and what it promises."""
    from cluster.steps import inspect_bundle

    show_tables(inspect_bundle(bundle, check=check), as_json=as_json)


@app.command()
def diff(first: Bundle, second: Bundle, as_json: AsJson = False) -> None:
    """Print what differs between two bundles."""
    from cluster.steps import compare_bundles

    show_tables(compare_bundles(first, second), as_json=as_json)


@app.command()
def predict(
    bundle_or_url: Annotated[str, typer.Argument(help="a bundle folder, or an endpoint's URL")],
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG or WebP files")],
    operating_point: Annotated[str | None, typer.Option(help="name; the first if absent")] = None,
    prevalence: Prevalence = None,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="CONSILIUM_API_KEY", help="of an endpoint that asks for one"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score images with a bundle on this machine, or with an endpoint."""
    from cluster.steps import predict_images, read_prevalence

    shares = read_prevalence(prevalence or [])
    rows = predict_images(
        bundle_or_url, images, operating_point, prevalence=shares, api_key=api_key
    )
    if as_json:
        print_json({"images": rows})
        return
    table("Educational and research use; not a medical device", rows)


@app.command()
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


@app.command()
def space(
    bundle: Bundle,
    output: Annotated[Path, typer.Argument(help="a folder that is not there yet")],
) -> None:
    """Write a Gradio app, as a Hugging Face Space has it, that scores by a bundle."""
    from serving.space.write import write_space

    folder = write_space(bundle, output)
    messages.print(f"space: {folder}; python -m pip install -r requirements.txt, then app.py")


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="folder for all that it makes")] = Path(
        "outputs/demo"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="leave the endpoint up")] = False,
) -> None:
    """Search, ensemble and a live endpoint on synthetic lesions; nothing is downloaded."""
    from cluster.demo import run_demo

    run_demo(output, keep=keep)


def run(words: Sequence[str] | None = None) -> None:
    """The command on these words, or the process's; errors come through."""
    given = None if words is None else list(words)
    if app(args=given, prog_name="consilium", standalone_mode=False) == INTERRUPTED:
        raise KeyboardInterrupt


def main(words: Sequence[str] | None = None) -> None:
    """The command for people: a mistake of theirs is one line and exit code 2, anything else 1."""
    try:
        run(words)
    except ConsiliumError as error:
        _stop(str(error), error.exit_code)
    except OSError as error:
        _stop(_mend(error), 2)
    except typer.Abort:
        _stop("stopped", 1)
    except KeyboardInterrupt:
        _stop("stopped; the same command goes on where it stopped", 1)
    except TyperException as error:
        message = getattr(error, "format_message", error.__str__)().rstrip(".")
        if message:  # none where no command was given: then the help is printed
            _stop(f"{message}; see consilium --help", 2)
        sys.exit(2)


def _mend(error: OSError) -> str:
    """One line for a file or disk that does not do as asked; any other error comes through."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}the disk is full; free some space and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        reason = (error.strerror or "not allowed").lower()
        return f"{where}{reason}; choose another output folder"
    if error.errno in (errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG):
        return f"{where}{(error.strerror or 'not there').lower()}; check the path"
    raise error


def _stop(message: str, code: int) -> None:
    line = " ".join(message.split())
    print(f"consilium: {line}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
