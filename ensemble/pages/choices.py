"""Sections that say how the bundle was chosen, and what the other choices would have been worth."""

from collections.abc import Sequence

from ensemble.pages.forest import Row, forest
from ensemble.pages.story import Curve, Story
from ensemble.pages.tables import Cell, Section, Table, figure, text
from ensemble.pages.training import History, training_figure, trajectory_figure
from search.report.canvas import Chart, chart, number, percent, plural

PAIRS = 12  # most alike first


def choice_sections(story: Story) -> list[Section]:
    """All that have data, in the order of the page."""
    made = (
        _selection(story),
        _likeness(story),
        _contributions(story),
        _calibrators(story),
        _views(story),
        _training(story),
    )
    return [section for section in made if section is not None]


def shipped(is_so: bool) -> Cell:
    """The mark of what was taken."""
    return Cell("shipped", tone="good") if is_so else Cell("")


def worth(nll: float, difference: float, standard_error: float) -> list[Cell]:
    """Three cells: a log loss, and how far it is from the best one's."""
    spread = Cell(f"+{difference:.4f}" if difference > 0 else "0", is_number=True)
    return [
        Cell(f"{nll:.4f}", is_number=True),
        spread,
        Cell(f"± {standard_error:.4f}", is_number=True),
    ]


def _selection(story: Story) -> Section | None:
    s = story.selection
    if s is None:
        return None
    rows = [
        [
            text(c.choice),
            *worth(c.nll, c.difference, c.standard_error),
            Cell(str(c.members), is_number=True),
            shipped(c.shipped),
        ]
        for c in s.choices
    ]
    columns = ["Choice", "Log loss ↓", "From the best", "Standard error", "Members", ""]
    charts: list[Chart] = []
    if s.trajectory:
        caption = (
            f"Picks may repeat. From {number(s.trajectory[0])} to {number(min(s.trajectory))}."
        )
        drawn = trajectory_figure(s.trajectory)
        charts.append(chart("trajectory", "Greedy picks", drawn, 340, caption=caption))
    kept = [(w, k) for k, w in enumerate(s.weights) if w > 0]
    finding = (
        f"“{s.choice}” was shipped: {plural(len(kept), 'member')} of "
        f"{plural(len(s.weights), 'candidate')}, the simplest choice within one standard error "
        "of the best on groups of images it had not seen."
    )
    weights = [f"{story.candidate(k)}: weight {number(w)}" for w, k in sorted(kept, reverse=True)]
    tables = [Table("Choices", columns, rows)] if rows else []
    items = [*weights, *s.notes]
    return Section("selection", "Selection", finding, charts, tables=tables, items=items)


def _likeness(story: Story) -> Section | None:
    pairs = story.selection.pairs if story.selection else []
    if not pairs:
        return None
    ranked = sorted(pairs, key=lambda p: (not p.near_copy, p.disagreement, -p.error_correlation))
    copies = sum(p.near_copy for p in pairs)
    rows = [
        [
            text(f"{story.candidate(p.first)} and {story.candidate(p.second)}"),
            Cell(percent(p.disagreement), is_number=True),
            figure(p.error_correlation),
            Cell("near copy" if p.near_copy else "", tone="warn"),
        ]
        for p in ranked[:PAIRS]
    ]
    least, most = (f(p.disagreement for p in pairs) for f in (min, max))
    finding = (
        f"{plural(copies, 'near copy').replace('copys', 'copies')} among "
        f"{plural(len(pairs), 'pair')}; two candidates disagree on {percent(least)} to "
        f"{percent(most)} of images."
    )
    columns = ["The most alike", "Disagreement", "Error correlation", ""]
    return Section("likeness", "Diversity", finding, tables=[Table("Pairs", columns, rows)])


def _contributions(story: Story) -> Section | None:
    found = story.evaluation.contributions
    rows = [
        Row(c.member, c.loss_without, f"weight {number(c.weight)}, alone {number(c.alone)}")
        for c in found
        if c.loss_without.value is not None
    ]
    if not rows:
        return None
    caption = "Right of the line: without this member the log loss would be higher, it helps."
    helping = sum((row.estimate.low or 0.0) > 0 for row in rows)
    finding = (
        f"Log loss of the pool without a member, less the whole pool's: {helping} of {len(rows)} "
        "clearly help."
    )
    plot = forest("What leaving a member out costs", rows, caption=caption, reference=0)
    return Section("contributions", "Contributions", finding, forests=[plot])


def _calibrators(story: Story) -> Section | None:
    if not story.calibrators:
        return None
    rows = [
        [text(c.kind), *worth(c.nll, c.difference, c.standard_error), shipped(c.chosen)]
        for c in story.calibrators
    ]
    columns = ["Calibrator", "Log loss ↓", "From the best", "Standard error", ""]
    taken = next((c.kind for c in story.calibrators if c.chosen), "none")
    finding = (
        f"{taken.capitalize()}: of {len(rows)} that were fitted on one part of the held-back "
        "images and scored on another, the simplest within one standard error of the best."
    )
    tables = [Table("Calibrators", columns, rows)]
    return Section("calibrators", "Calibrators", finding, tables=tables)


def _views(story: Story) -> Section | None:
    if not story.views:
        return None
    rows = [
        [
            text(v.views),
            *worth(v.nll, v.difference, v.standard_error),
            Cell(f"× {v.cost:g}", is_number=True),
            shipped(v.chosen),
        ]
        for v in story.views
    ]
    columns = ["Views", "Log loss ↓", "From the best", "Standard error", "Cost", ""]
    taken = next((v for v in story.views if v.chosen), None)
    finding = (
        f"{taken.views.capitalize()}, at {taken.cost:g} times the cost of one view."
        if taken
        else "None was chosen."
    )
    table = Table("Test-time augmentation", columns, rows)
    return Section("views", "Test-time augmentation", finding, tables=[table])


def _training(story: Story) -> Section | None:
    if not any(curve.epochs for curve in story.curves):
        return None
    members, others = _histories(story.curves, True), _histories(story.curves, False)
    drawn = training_figure(members, others)
    height = 380 + 20 * len(members)
    charts = [chart("training", "Training", drawn, height)]
    return Section("training", "Training", _lowest(members, others), charts)


def _histories(curves: Sequence[Curve], is_member: bool) -> list[History]:
    chosen = [curve for curve in curves if curve.is_member == is_member]
    return [(curve.name, [epoch.get("nll") for epoch in curve.epochs]) for curve in chosen]


def _lowest(members: Sequence[History], others: Sequence[History]) -> str:
    found = [
        (value, epoch, name)
        for name, history in [*members, *others]
        for epoch, value in enumerate(history, 1)
        if value is not None
    ]
    counts = f"{len(members)} in the ensemble and {len(others):,} not"
    start = f"Validation log loss of all trials, {counts}"
    if not found:
        return f"{start}."
    value, epoch, name = min(found)
    return f"{start}; the lowest is {number(value)}, {name} in epoch {epoch}."
