"""What people see on the terminal: progress and tables on stderr, results on stdout."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from search.atomic import finite

if TYPE_CHECKING:
    from ensemble.build import Built

WIDTH = 150  # of tables where no terminal says its own


class Messages(Console):
    """Where a closed pipe ends the messages; rich's own way ends stdout and the command."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


messages = Messages(stderr=True, width=None if sys.stderr.isatty() else WIDTH)
results = Console(width=None if sys.stdout.isatty() else WIDTH)


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
    drawn = Table(title=title, title_justify="left")
    for name in rows[0] if rows else ():
        is_number = isinstance(rows[0][name], int | float)
        drawn.add_column(name, justify="right" if is_number else "left")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row.values()))
    to.print(drawn)


def show_leaderboard(name: str, built: "Built") -> None:
    """Everyone on the sealed test, and where the pages are."""
    n = len(built.evaluation.labels)
    table(f"{name}: sealed test, {n} images", built.leaderboard)
    for point in built.bundle.manifest.operating_points:
        held = "certified" if point.certified else f"not certified: {point.reason}"
        messages.print(
            f"operating point {point.name}: threshold {point.threshold:.4f}, {held}", soft_wrap=True
        )
    for label, file in (("report", "report.html"), ("card", "card.md"), ("bundle", "")):
        messages.print(f"{label}: {built.bundle.folder / file}", soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON object on stdout; what is not finite becomes null."""
    print(json.dumps(finite(value), ensure_ascii=False))  # noqa: T201


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4f}"
    if isinstance(value, list | tuple):
        return " to ".join(_cell(part) for part in value)
    return "–" if value is None else str(value)
