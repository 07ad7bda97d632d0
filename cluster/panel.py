"""The panel that a search shows on a terminal."""

import math
from datetime import timedelta

from rich.console import Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.study.records import Status
from search.study.standing import RunningTrial, Standing

COLOURS: dict[Status, str] = {"complete": "green", "pruned": "yellow", "failed": "red"}
ENDS: dict[Status, str] = {"complete": "finished", "pruned": "pruned", "failed": "failed"}


def draw_step(what: str, done: int, total: int) -> Table:
    """A bar of a step that precedes trials."""
    grid = Table.grid(padding=(0, 1))
    grid.add_row(Text(what), ProgressBar(total, done, width=30), f"{done}/{total}")
    return grid


def draw_standing(standing: Standing, *, since: float, n_rows: int) -> Panel:
    """The panel of a study.

    Args:
        since: seconds that have passed since it stood like that.
        n_rows: at most so many of the running trials are shown.
    """
    whole = Table.grid(expand=True, padding=(0, 1))
    whole.add_column(ratio=1)
    whole.add_column(no_wrap=True)
    whole.add_row(
        ProgressBar(max(1, standing.target), standing.done), f"{standing.done}/{standing.target}"
    )
    lines = [_counts(standing), _best(standing), _spent(standing, since)]
    shown, hidden = standing.running[:n_rows], len(standing.running) - n_rows
    trials = [_running(shown, since)] if shown else []
    more = [Text(f"and {hidden} more", style="dim")] if hidden > 0 else []
    return Panel(Group(whole, *lines, *trials, *more), title=standing.phase, title_align="left")


def _counts(standing: Standing) -> Text:
    idle = max(0, standing.slots - len(standing.running))
    counts = [(f"{standing.counts.get(s, 0)} {word}", COLOURS[s]) for s, word in ENDS.items()]
    parts = [(f"{len(standing.running)} running", "bold"), *counts]
    parts += [(f"{idle} of {standing.slots} slots idle", "dim")] if idle else []
    return Text("  ").join(Text(words, style=style) for words, style in parts)


def _best(standing: Standing) -> Text:
    if standing.best is None:
        return Text(f"no {standing.objective} yet", style="dim")
    name = standing.best.recipe or standing.best.params.backbone
    value = number(standing.best.value)
    return Text.assemble(
        f"best {standing.objective} ", (value, "bold"), f"  trial {standing.best.number}  {name}"
    )


def _spent(standing: Standing, since: float) -> Text:
    words = _clock(standing.seconds + since)
    if standing.seconds_left is not None:
        words += f", {_clock(standing.seconds_left - since)} left"
    if standing.gpu_hours or standing.gpu_hours_left is not None:
        words += f"  {standing.gpu_hours:.2f} GPU-hours"
    if standing.gpu_hours_left is not None:
        words += f", {max(0, standing.gpu_hours_left):.2f} left"
    return Text(words)


def _running(trials: tuple[RunningTrial, ...], since: float) -> Table:
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
    grid.add_column(ratio=2)
    for _ in range(3):
        grid.add_column(justify="right", no_wrap=True)
    for trial in trials:
        grid.add_row(
            str(trial.number) + (f" fold {trial.fold}" if trial.fold else ""),
            Text(trial.name),
            ProgressBar(max(1, trial.max_epochs), trial.epoch),
            f"{trial.epoch}/{trial.max_epochs}",
            number(trial.value),
            f"{trial.seconds + since:.0f} s",
        )
    return grid


def number(value: float | None, absent: str = "–") -> str:
    """With four digits, or what stands for a value that is absent or not finite."""
    return f"{value:.4f}" if value is not None and math.isfinite(value) else absent


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))
