"""What a search shows while it goes on."""

import errno
import io
import json
import math
import os
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from cluster.live import Mode, trial_line, watching
from cluster.panel import draw_standing
from search.params import Params
from search.study.records import TrialRecord
from search.study.standing import RunningTrial, Standing

BEST = TrialRecord(
    number=3, status="complete", recipe="vgg16", params=Params(), fold=0, value=0.4312
)
ENDED = TrialRecord(
    number=4, status="pruned", params=Params(backbone="cnn"), fold=0, seconds=33.21, epochs=[{}] * 2
)


def running(number: int, **changes: Any) -> RunningTrial:
    whole: dict[str, Any] = {
        "number": number,
        "fold": 0,
        "name": "custom_cnn",
        "epoch": 2,
        "max_epochs": 9,
        "value": 0.51234,
        "seconds": 12.0,
    }
    return RunningTrial(**{**whole, **changes})


def standing(**changes: Any) -> Standing:
    whole: dict[str, Any] = {
        "phase": "trials",
        "running": (running(5),),
        "counts": {"complete": 5, "pruned": 2},
        "done": 7,
        "target": 30,
        "best": BEST,
        "objective": "nll",
        "seconds": 191.0,
        "seconds_left": 1009.0,
        "gpu_hours": 0.4,
        "gpu_hours_left": 1.6,
        "slots": 2,
    }
    return Standing(**{**whole, **changes})


def terminal(file: Any = None, *, width: int = 100) -> Console:
    return Console(
        file=file or io.StringIO(), force_terminal=True, width=width, height=30, color_system=None
    )


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drawn(standing: Standing, *, width: int = 100, n_rows: int = 6, since: float = 0) -> list[str]:
    """The panel's lines, without its frame."""
    console = terminal(width=width)
    console.print(draw_standing(standing, since=since, n_rows=n_rows))
    lines = shown(console).splitlines()
    assert {cell_len(line) for line in lines} == {width}
    return [line.strip("│ ") for line in lines]


def test_the_panel_says_how_the_study_stands() -> None:
    title, whole, counts, best, spent, trial, _ = drawn(standing())
    assert title.startswith("╭─ trials ─")
    assert (whole.count("━"), whole.endswith(" 7/30")) == (21, True)  # of 91
    assert counts == "1 running  5 finished  2 pruned  0 failed  1 of 2 slots idle"
    assert best == "best nll 0.4312  trial 3  vgg16"
    assert spent == "0:03:11, 0:16:49 left  0.40 GPU-hours, 1.60 left"
    assert trial.startswith("5 custom_cnn ")
    assert trial.endswith(" 2/9 0.5123 12 s")


def test_clocks_go_on_between_two_standings() -> None:
    lines = drawn(standing(), since=10)
    assert lines[4].startswith("0:03:21, 0:16:39 left")
    assert lines[5].endswith("22 s")


def test_a_study_without_trials_best_or_budgets_is_drawn_as_that() -> None:
    bare = standing(
        running=(), counts={}, best=None, seconds_left=None, gpu_hours=0, gpu_hours_left=None
    )
    assert drawn(bare)[2:5] == [
        "0 running  0 finished  0 pruned  0 failed  2 of 2 slots idle",
        "no nll yet",
        "0:03:11",
    ]


def test_of_many_running_trials_the_first_are_shown_and_the_rest_counted() -> None:
    lines = drawn(standing(running=tuple(map(running, range(64))), slots=64))
    assert [line.split()[0] for line in lines[5:11]] == list("012345")
    assert lines[11] == "and 58 more"


@pytest.mark.parametrize("value", [None, math.nan])
def test_a_trial_without_a_value_has_a_dash(value: float | None) -> None:
    assert drawn(standing(running=(running(5, value=value),)))[5].endswith("2/9 – 12 s")


@pytest.mark.parametrize("width", [40, 60])
def test_a_long_name_gives_way_to_the_numbers(width: int) -> None:
    name = "皮膚がん_моделька_" * 5
    line = drawn(standing(running=(running(5, name=name, fold=1),)), width=width)[-2]
    assert line.startswith("5 fold 1 皮")
    assert "…" in line
    assert line.endswith("2/9 0.5123 12 s")


def test_live_shows_the_panel_below_a_line_for_each_ended_trial() -> None:
    console = terminal()
    with watching("live", console=console) as view:
        view.watch(standing(), None)
        view.watch(standing(), ENDED)
    text = shown(console)
    assert "pruned   trial 4   cnn " in text
    assert "╭─ trials ─" in text
    assert text.endswith("\x1b[2K")  # the panel is taken away, its numbers follow as a table
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")  # and the cursor is back


def test_live_draws_a_few_times_a_second_however_often_it_hears() -> None:
    console = terminal()
    with watching("live", console=console) as view:
        for done in range(2000):
            view.watch(standing(done=done), None)
    assert 1 <= shown(console).count("╭─ trials ─") < 20


def test_live_has_the_bars_of_steps_and_the_panel_in_one_view() -> None:
    console = terminal()
    with watching("live", console=console) as view:
        view.progress("decode at 64 pixels", 9, 10)
        view.progress("decode at 64 pixels", 10, 10)
        view.watch(standing(), None)
        view.progress("decode at 96 pixels", 3, 10)
    bar = shown(console).index("decode at 96 pixels ━━━━━━━━━ ")
    assert bar < shown(console).index(" 3/10\n") < shown(console).index("╭─ trials ─", bar)
    assert "decode at 64 pixels: 10\n" in shown(console)


def test_lines_are_one_for_each_ended_trial_and_each_step_done() -> None:
    console = Console(file=io.StringIO(), width=40)
    failed = ENDED.model_copy(update={"status": "failed", "error": "no [/such] weights", "fold": 1})
    with watching("lines", console=console) as view:
        for done in (1, 2, 3, 3):
            view.progress("decode at 64 pixels", done, 3)
        view.watch(standing(), None)
        view.watch(standing(), BEST)
        view.watch(standing(done=8), failed)
    assert shown(console).splitlines() == [
        "decode at 64 pixels: 3",
        "complete trial 3   vgg16                    0.4312   0 epochs    0.0 s   7/30",
        "failed   trial 4   cnn fold 1                        2 epochs   33.2 s   8/30"
        "  no [/such] weights",
    ]


def test_without_a_terminal_live_is_lines() -> None:
    console = Console(file=io.StringIO(), force_terminal=False)
    with watching("live", console=console) as view:
        view.progress("decode at 64 pixels", 1, 3)
        view.watch(standing(), ENDED)
    assert shown(console) == f"{trial_line(ENDED, 7, 30)}\n"


def test_json_is_an_object_a_line() -> None:
    console = Console(file=io.StringIO(), width=40)
    with watching("json", console=console) as view:
        view.progress("decode at 64 pixels", 3, 3)
        view.watch(standing(), None)
        view.watch(standing(), ENDED)
        view.watch(standing(best=None), BEST.model_copy(update={"value": math.nan}))
    first, second = map(json.loads, shown(console).splitlines())
    assert first == {
        "event": "trial",
        "phase": "trials",
        "trial": 4,
        "fold": 0,
        "status": "pruned",
        "value": None,
        "epochs": 2,
        "seconds": 33.2,
        "error": None,
        "done": 7,
        "target": 30,
        "best": 0.4312,
        "best_trial": 3,
        "seconds_left": 1009.0,
    }
    assert (second["value"], second["best"], second["best_trial"]) == (None, None, None)


def test_quiet_shows_nothing() -> None:
    console = terminal()
    with watching("quiet", console=console) as view:
        view.progress("decode at 64 pixels", 3, 3)
        view.watch(standing(), ENDED)
    assert shown(console) == ""


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("lines", "[/data] is full\n"),
        ("json", '{"event": "note", "text": "[/data] is full"}\n'),
        ("quiet", ""),
    ],
)
def test_what_a_person_should_know_is_said_as_it_is(mode: Mode, expected: str) -> None:
    console = Console(file=io.StringIO(), width=100)
    with watching(mode, console=console) as view:
        view.say("[/data] is full")
    assert shown(console) == expected


@pytest.mark.parametrize("mode", ["live", "lines", "json", "quiet"])
def test_stdout_stays_the_results(capsys: pytest.CaptureFixture[str], mode: Mode) -> None:
    with watching(mode) as view:
        view.progress("decode at 64 pixels", 3, 3)
        view.watch(standing(), ENDED)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("trial" in captured.err) == (mode != "quiet")


class Gone(io.StringIO):
    """A terminal that has been closed."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} of {len(text)} characters")


@pytest.mark.parametrize("mode", ["live", "lines", "json"])
@pytest.mark.parametrize("is_closed", [True, False])
def test_a_terminal_that_goes_away_does_not_end_the_search(mode: Mode, is_closed: bool) -> None:
    file = io.StringIO() if is_closed else Gone()
    console = terminal(file)
    if is_closed:
        file.close()
    with watching(mode, console=console) as view:
        view.watch(standing(), ENDED)
        view.watch(standing(), ENDED)
    assert console.quiet
