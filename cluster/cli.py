"""The `consilium` command: parse, call one function, print."""

import errno
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.connect import connected
from cluster.console import messages, print_json, progress_bars, table, trial_line
from search.config import ExperimentConfig, load_config
from search.errors import ConsiliumError

app = typer.Typer(
    help="Search image classifiers, ensemble and calibrate the best, serve them over HTTP. "
    "Educational and research use; not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Config = Annotated[Path, typer.Argument(help="an experiment's YAML; see configs/")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
Address = Annotated[str | None, typer.Option(help="of an existing Ray cluster")]


@app.command()
def audit(config: Config, as_json: AsJson = False, address: Address = None) -> None:
    """Look for what is wrong with an experiment's images, and write a page about it."""
    from search.intake import audit_data

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
def search(config: Config, as_json: AsJson = False, address: Address = None) -> None:
    """Search for good classifiers; the same command again goes on where it stopped."""
    settings = load_config(config)
    with connected(address):
        records = _search(settings)
    if as_json:
        print_json({"study": str(settings.study_folder), "trials": records})
        return
    table(f"Study {settings.name}", records)
    messages.print(f"study: {settings.study_folder}", soft_wrap=True)


def _search(settings: ExperimentConfig) -> list[dict[str, Any]]:
    from search.study import run_study
    from search.train import LOWER_IS_BETTER

    with progress_bars() as progress:
        study = run_study(
            settings,
            progress=progress,
            ended=lambda record, done: trial_line(record, done, settings.budget.trials),
        )
    sign = 1 if settings.objective in LOWER_IS_BETTER else -1
    records = sorted(
        study.records(), key=lambda r: (r.value is None, sign * (r.value or 0), r.number)
    )
    return [
        {
            "trial": r.number,
            "status": r.status,
            "recipe": r.recipe,
            "backbone": r.params.backbone,
            "size": r.params.image_size,
            settings.objective: r.value,
            "auroc": r.epochs[r.best_epoch - 1].get("auroc") if r.best_epoch else None,
            "epochs": len(r.epochs),
            "seconds": round(r.seconds, 1),
        }
        for r in records
    ]


def main() -> None:
    """Run the command; a user's mistake is one line and exit code 2, anything else 1."""
    try:
        app(standalone_mode=False)
    except ConsiliumError as error:
        _stop(str(error), 2)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _stop(f"{where}the disk is full; free some space and run the same command again", 2)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except typer.Abort:
        _stop("stopped", 1)
    except KeyboardInterrupt:
        _stop("stopped; the same command goes on where it stopped", 1)
    except Exception as error:
        if type(error).__module__.startswith("click"):
            _stop(str(getattr(error, "format_message", lambda: error)()), 2)
        raise


def _stop(message: str, code: int) -> None:
    line = " ".join(message.split())
    print(f"consilium: {line}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
