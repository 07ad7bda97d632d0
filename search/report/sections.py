"""The sections of a study's page: each a sentence that says how to read it, and its figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import optuna

from search.objectives import COSTS
from search.report.canvas import (
    Chart,
    chart,
    duration,
    is_number,
    label,
    number,
    percent,
    plural,
    words,
)
from search.report.charts import (
    curves_figure,
    front_figure,
    history_figure,
    importance_figure,
    rungs_of,
)
from search.report.coordinates import columns_of, coordinates_figure
from search.report.cost_charts import (
    folds_figure,
    lanes_of,
    timeline_figure,
    timeline_of,
    times_figure,
    times_of,
)
from search.report.importance import param_importances
from search.report.leaderboard import achieved, is_sound, less_is_better, pareto_front, ranked
from search.report.results import Results

NO_VALUE = "No trial has a value yet."
ROUGH = 30  # complete trials below which importances are only a hint
AXIS = 120  # pixels an axis of the parallel coordinates


@dataclass(frozen=True)
class Section:
    """A heading, how to read what is below it, the figures; where there is none, the reason."""

    key: str
    title: str
    caption: str
    charts: Sequence[Chart] = ()
    empty: str = ""


def sections_of(results: Results, study: optuna.Study | None) -> list[Section]:
    """All sections with figures, in the order of the page."""
    return [
        _history(results),
        _importance(results, study),
        _coordinates(results),
        _curves(results),
        _front(results),
        _cost(results),
        _folds(results),
    ]


def _history(results: Results) -> Section:
    objective = results.objectives[0]
    valued = [r for r in results.records if is_number(r.value)]
    caption = (
        f"A mark a trial: its {words(objective)} at its best epoch on fold 0; the stairs "
        "are the best so far among the trials that have a rank."
    )
    if not valued:
        return Section("history", "Optimisation history", caption, empty=NO_VALUE)
    best = ranked(results.records, objective)[:1]
    told = f" The best is trial {best[0].number} with {number(best[0].value)}." if best else ""
    figure = chart("history", "Value by trial", history_figure(results.records, objective), 420)
    return Section("history", "Optimisation history", caption + told, [figure])


def _importance(results: Results, study: optuna.Study | None) -> Section:
    found = param_importances(study)
    caption = (
        "How much a param's values in the best trials differ from those in all complete trials "
        f"(PED-ANOVA, by {words(results.objectives[0])}): a long bar says that the choice "
        "mattered, not which value to choose."
    )
    title = "Importance of params"
    if found.reason:
        return Section("importance", title, caption, empty=found.reason)
    few = ", too few for more than a hint" if found.n_trials < ROUGH else ""
    told = f" The best {percent(found.best)} of {found.n_trials:,} complete trials{few}."
    figure = importance_figure(found.shares)
    height = 90 + 28 * len(found.shares)
    return Section(
        "importance", title, caption + told, [chart("importance", title, figure, height)]
    )


def _coordinates(results: Results) -> Section:
    objective = results.objectives[0]
    sound = [r for r in results.records if is_sound(r)]
    space = None if results.config is None else results.config.space
    columns = columns_of(sound, space)
    caption = (
        "A line a trial through its sampled params to its value, the best in blue; drag along an "
        "axis to keep the lines that pass there, click it to let go. A dash is where a param does "
        "not apply."
    )
    title = "Parallel coordinates"
    if not columns:
        why = "No sampled param differs between trials." if sound else NO_VALUE
        return Section("coordinates", title, caption, empty=why)
    figure = coordinates_figure(columns, [r.value or 0.0 for r in sound], objective, space)
    width = AXIS * (len(columns) + 2)
    return Section("coordinates", title, caption, [chart("coordinates", title, figure, 440, width)])


def _curves(results: Results) -> Section:
    objective = results.objectives[0]
    rungs = [] if results.config is None else rungs_of(results.config.fidelity)
    title, n_trials = "Learning curves", sum(bool(r.epochs) for r in results.records)
    caption = (
        f"{label(objective)} on fold 0 by epoch, a line a trial; pale ones were stopped or failed."
    )
    if results.config is None:
        caption += " The rungs are not known: config.yaml cannot be read."
    elif rungs:
        epochs = ", ".join(str(rung) for rung in rungs)
        keeps = results.config.fidelity.reduction
        caption += f" Dotted are the rungs (epoch {epochs}), where about one in {keeps} goes on."
    if not n_trials:
        return Section("curves", title, caption, empty="No trial has finished an epoch yet.")
    figure, drawn = curves_figure(results.records, objective, rungs)
    if drawn < n_trials:
        caption += f" Drawn are the {drawn:,} best of {n_trials:,}."
    return Section("curves", title, caption, [chart("curves", title, figure, 460)])


def _front(results: Results) -> Section:
    feasible = ranked(results.records, results.objectives[0])
    names = list(results.objectives)
    if len(names) == 1:
        names.append(next((n for n in COSTS if any(n in r.costs for r in feasible)), "seconds"))
    whole = [r for r in feasible if all(is_number(achieved(r, name)) for name in names)]
    front = pareto_front(whole, names)
    what = " and ".join(words(name) for name in names)
    caption = (
        f"No trial is better than one of the front in {what} at once: off the front, something "
        "can be had for nothing."
    )
    title = "Pareto front"
    if not whole:
        return Section("front", title, caption, empty=NO_VALUE)
    told = f" It holds {plural(len(front), 'trial')} of {len(whole):,} feasible ones."
    ways = [f"{label(n)}: {'less' if less_is_better(n) else 'more'} is better." for n in names]
    first, *others = names
    charts = [
        chart(f"front-{i}", f"{label(first)} and {words(name)}", figure, 420)
        for i, name in enumerate(others)
        for figure in [front_figure(whole, names, name, first)]
    ]
    return Section("front", title, " ".join([caption + told, *ways]), charts)


def _cost(results: Results) -> Section:
    records = [r for r in results.everything if r.seconds > 0]
    title = "Cost"
    caption = "Each bar is a training on its worker: gaps are time that was not used."
    if not records:
        return Section("cost", title, caption, empty="No time has been recorded yet.")
    total = sum(r.seconds for r in records)
    start, train, val, other = (sum(p) / total for p in zip(*map(times_of, records), strict=True))
    told = (
        f" Of {duration(total)} on all workers together, {percent(start)} went to starting, "
        f"{percent(train)} to training, {percent(val)} to validation and {percent(other)} to the "
        "rest, which is measuring and writing."
    )
    timeline = timeline_of(records)
    times = chart("times", "Where the time went", times_figure(records), 300)
    if not timeline.spans:
        return Section("cost", title, caption + told + " When and where was not recorded.", [times])
    if timeline.cuts:
        pauses = plural(len(timeline.cuts), "pause")
        told += f" {pauses} of together {duration(timeline.paused)} are cut out where dotted."
    n_lanes = len(set(lanes_of(timeline).values()))
    height = 200 + min(24 * n_lanes, 640)
    bars = chart("timeline", "Who trained when", timeline_figure(timeline), height)
    return Section("cost", title, caption + told, [bars, times])


def _folds(results: Results) -> Section:
    objective = results.objectives[0]
    by_number = {record.number: record for record in results.records}
    places = {r.number: i for i, r in enumerate(ranked(results.records, objective))}
    numbers = sorted(results.folds, key=lambda n: places.get(n, len(places)))
    finalists = {
        n: [r for r in [by_number.get(n), *results.folds[n]] if r and is_number(r.value)]
        for n in numbers
    }
    caption = (
        "The finalists on every fold. Fold 0 chose them, so its value flatters; bar and whiskers "
        "are mean and standard deviation of the other folds."
    )
    title = "Variance between folds"
    values = {n: [r.value or 0.0 for r in found if r.fold > 0] for n, found in finalists.items()}
    if not any(values.values()):
        return Section("folds", title, caption, empty="No finalist was trained on another fold.")
    spreads = [stdev(found) for found in values.values() if len(found) > 1]
    if spreads:
        caption += (
            f" They deviate by {number(fmean(spreads))} on average: differences between trials "
            "below that say little."
        )
    figure = folds_figure(finalists, objective)
    return Section("folds", title, caption, [chart("folds", title, figure, 420)])
