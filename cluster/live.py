"""How a search shows itself while it goes on: a live panel, lines, JSON lines or nothing.

All of it goes to stderr. A terminal that goes away ends the view, never the search.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from cluster.console import messages
from cluster.panel import COLOURS, draw_standing, draw_step, number
from search.atomic import finite
from search.study.records import TrialRecord
from search.study.standing import Standing

Mode = Literal["live", "lines", "json", "quiet"]
MOST_ROWS = 16  # of running trials
OTHER_LINES = 12  # of the panel, and a few of the terminal above it


@contextmanager
def watching(mode: Mode, *, console: Console = messages) -> Iterator["View"]:
    """Show a search: hand `view.watch` and `view.progress` to `run_study`.

    Where the console is no terminal, lines take the place of the live panel.
    """
    if mode == "live" and console.is_terminal and not console.is_dumb_terminal:
        view = LivePanel(console)
        view.start()
        try:
            yield view
        finally:
            view.stop()
    elif mode in ("live", "lines"):
        yield Lines(console)
    else:
        yield JsonLines(console) if mode == "json" else View()


class View:
    """Shows nothing."""

    def watch(self, standing: Standing, ended: TrialRecord | None) -> None:
        """Take in how the study stands, and the trial that has just ended, if any."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Take in how far a step is that precedes trials."""

    def say(self, line: str) -> None:
        """Take in what a person should know."""


class Lines(View):
    """A line for each trial that ends, and for each step that is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps: dict[str, tuple[int, int]] = {}  # those under way

    def watch(self, standing: Standing, ended: TrialRecord | None) -> None:
        if ended is not None:
            self._say(trial_line(ended, standing.done, standing.target))

    def progress(self, what: str, done: int, total: int) -> None:
        if done < total:
            self._steps[what] = (done, total)
        elif self._steps.pop(what, None) or total == 1:
            self._say(Text(f"{what}: {total}"))

    def say(self, line: str) -> None:
        self._say(Text(line))

    def _say(self, line: Text) -> None:
        with _surviving(self._console):
            self._console.print(line, soft_wrap=True)


class JsonLines(View):
    """A JSON object a line for each trial that ends."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def watch(self, standing: Standing, ended: TrialRecord | None) -> None:
        if ended is not None:
            self._write(trial_event(standing, ended))

    def say(self, line: str) -> None:
        self._write({"event": "note", "text": line})

    def _write(self, event: dict[str, object]) -> None:
        with _surviving(self._console):
            self._console.out(json.dumps(finite(event), ensure_ascii=False), highlight=False)


class LivePanel(Lines):
    """Bars of the steps and a panel of the trials, below the lines; drawn four times a second."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._standing: Standing | None = None
        self._heard = 0.0
        self._live = _Live(
            console=console,
            get_renderable=self._draw,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # what is printed there would cut the panel in two
        )

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def watch(self, standing: Standing, ended: TrialRecord | None) -> None:
        self._standing, self._heard = standing, time.monotonic()
        super().watch(standing, ended)

    def _draw(self) -> RenderableType:
        steps = [draw_step(what, *step) for what, step in list(self._steps.items())]
        if self._standing is None:
            return Group(*steps)
        since = time.monotonic() - self._heard
        n_rows = max(1, min(MOST_ROWS, self._console.height - OTHER_LINES))
        return Group(*steps, draw_standing(self._standing, since=since, n_rows=n_rows))


def trial_line(record: TrialRecord, done: int, target: int) -> Text:
    """How a trial ended, in one line."""
    name = record.recipe or record.params.backbone
    fold = f" fold {record.fold}" if record.fold else ""
    return Text.assemble(
        (f"{record.status:<8}", COLOURS.get(record.status, "")),
        f" trial {record.number:<3} {name + fold:<22} {number(record.value, ''):>8} ",
        f"{len(record.epochs):>3} epochs {record.seconds:6.1f} s   {done}/{target}",
        f"  {record.error}" if record.error else "",
    )


def trial_event(standing: Standing, record: TrialRecord) -> dict[str, object]:
    """How a trial ended, and the study's standing then, for machines."""
    return {
        "event": "trial",
        "phase": standing.phase,
        "trial": record.number,
        "fold": record.fold,
        "status": record.status,
        "value": record.value,
        "epochs": len(record.epochs),
        "seconds": round(record.seconds, 1),
        "error": record.error,
        "done": standing.done,
        "target": standing.target,
        "best": standing.best and standing.best.value,
        "best_trial": standing.best and standing.best.number,
        "seconds_left": standing.seconds_left,
    }


class _Live(Live):
    """One that a terminal's end does not end in an error."""

    def start(self, refresh: bool = False) -> None:
        with _surviving(self.console):
            self.console.show_cursor(False)  # fails while nothing has begun that needs an end
            super().start(refresh)

    def stop(self) -> None:
        with _surviving(self.console):
            super().stop()

    def refresh(self) -> None:
        with _surviving(self.console):
            super().refresh()


@contextmanager
def _surviving(console: Console) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError):  # the second is a closed file's
        console.quiet = True
