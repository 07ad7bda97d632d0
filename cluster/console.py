"""What people see on the terminal: progress and tables on stderr, results on stdout."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from search.atomic import finite

if TYPE_CHECKING:
    from ensemble.build import Built
    from ensemble.evaluation.results import Estimate, Estimates, Evaluation

WIDTH = 150  # of tables where no terminal says its own
SHOWN = {
    "auroc": "AUROC",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
    "sensitivity_at_point": "sensitivity",
    "specificity_at_point": "specificity",
}


class Messages(Console):
    """Where a closed pipe ends the messages; rich's own way ends stdout and the command."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


# Names come from users' files and may hold what rich takes for markup.
messages = Messages(stderr=True, markup=False, width=None if sys.stderr.isatty() else WIDTH)
results = Console(markup=False, width=None if sys.stdout.isatty() else WIDTH)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A function of (what, done, of how many) that draws a bar for each `what`."""
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=messages,
    )
    tasks: dict[str, Any] = {}

    def update(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)

    with bars:
        yield update


def table(title: str, rows: list[dict[str, Any]], *, to: Console = results) -> None:
    """Print rows of equal keys as a table; numbers with four digits."""
    drawn = Table(title=Text(title), title_justify="left")
    for name in rows[0] if rows else ():
        is_number = isinstance(rows[0][name], int | float)
        drawn.add_column(Text(name), justify="right" if is_number else "left")
    for row in rows:
        drawn.add_row(*(Text(_cell(value)) for value in row.values()))
    to.print(drawn)


def show_leaderboard(name: str, built: "Built") -> None:
    """Everyone on the sealed test, and where the pages are."""
    rows = [
        {"who": row.who} | {name: _estimate(row.metrics, metric) for metric, name in SHOWN.items()}
        for row in built.leaderboard
    ]
    table(f"{name}: sealed test, {built.evaluation.n_images} images, 95% intervals", rows)
    show_points(built.evaluation)
    for verdict in built.verdicts:
        messages.print(f"gate {'holds' if verdict.holds else 'FAILED'}: {verdict.rule}")
    for label, file in (("report", "report.html"), ("card", "card.md"), ("bundle", "")):
        messages.print(f"{label}: {built.bundle.folder / file}", soft_wrap=True)


def show_evaluation(evaluation: "Evaluation") -> None:
    """The numbers of one bundle on one set."""
    rows = [{"metric": name, "95% interval": _text(e)} for name, e in evaluation.metrics.items()]
    table(f"{evaluation.n_images} images", rows)
    show_points(evaluation)


def show_points(evaluation: "Evaluation") -> None:
    """What each operating point does, and whether it is certified."""
    rows = [
        {
            "operating point": point.name,
            "threshold": point.threshold,
            "sensitivity": _text(point.sensitivity),
            "specificity": _text(point.specificity),
            "certified": f"{'yes' if point.certified else 'no'}: {point.reason}",
        }
        for point in evaluation.operating_points
    ]
    if rows:
        table("Operating points on these images", rows)


def show_tables(tables: Sequence[tuple[str, list[dict[str, Any]]]], *, as_json: bool) -> None:
    """Several tables, or one JSON object of them by title."""
    if as_json:
        print_json(dict(tables))
        return
    for title, rows in tables:
        table(title, rows)


def _estimate(metrics: "Estimates", name: str) -> str:
    return _text(metrics[name]) if name in metrics else "–"


def _text(estimate: "Estimate") -> str:
    if estimate.value is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def print_json(value: Any) -> None:
    """One JSON object on stdout; what is not finite becomes null."""
    print(json.dumps(finite(value), ensure_ascii=False))  # noqa: T201


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4f}"
    if isinstance(value, list | tuple):
        return " to ".join(_cell(part) for part in value)
    return "–" if value is None else str(value)
