"""The section that sets the ensemble beside others on the same images."""

from collections.abc import Sequence

from ensemble.evaluation.results import Difference, LeaderboardRow
from ensemble.pages.forest import Forest, Row, forest
from ensemble.pages.story import OURS, Story
from ensemble.pages.tables import LESS, Cell, Section, Table, arrow, estimated, label, text, words
from search.report.canvas import is_number, number

# Sensitivity and specificity are bought with one another, and one who says the prevalence of every
# image has no calibration error: none of these is best alone.
RANKED = {
    *("auroc", "auprc", "accuracy", "balanced_accuracy", "f1", "specificity_at_95"),
    *("nll", "brier", "augrc"),
}
SHOWN = (
    *("auroc", "nll", "brier", "ece", "smooth_ece", "balanced_accuracy", "specificity_at_95"),
    *("sensitivity_at_point", "specificity_at_point"),
)
COMPARED = ("nll", "brier", "auroc", "ece", "specificity_at_95")


def comparison_section(story: Story) -> Section | None:
    """The leaderboard and the paired differences; None where there is nobody to compare with."""
    differences = story.evaluation.differences
    if not story.leaderboard and not differences:
        return None
    tables = [leaderboard_table(story.leaderboard)] if story.leaderboard else []
    forests = [f for f in (_forest(differences, metric) for metric in COMPARED) if f is not None]
    return Section("leaderboard", "Leaderboard", _finding(differences), (), forests, tables)


def leaderboard_table(rows: Sequence[LeaderboardRow]) -> Table:
    """Everyone's headline metrics with intervals, the best of each marked, ties as printed."""
    there = {name for row in rows for name in row.metrics}
    shown = [name for name in SHOWN if name in there] or sorted(there)
    best = {name: _best(rows, name) for name in shown if name in RANKED}
    epochs = any(row.epochs for row in rows)
    columns = ["Who", "What", *(["Epochs"] if epochs else []), *map(arrow, shown)]
    cells = [
        [
            text(row.who),
            text(row.what),
            *([text(row.epochs)] if epochs else []),
            *(_cell(row, name, best.get(name)) for name in shown),
        ]
        for row in rows
    ]
    ours = next((i for i, row in enumerate(rows) if row.who == OURS), None)
    return Table("Leaderboard", columns, cells, ours)


def _best(rows: Sequence[LeaderboardRow], metric: str) -> str | None:
    values = [row.metrics[metric].value for row in rows if metric in row.metrics]
    known = [value for value in values if value is not None]
    return number((min if metric in LESS else max)(known)) if known else None


def _cell(row: LeaderboardRow, metric: str, best: str | None) -> Cell:
    estimate = row.metrics.get(metric)
    is_best = estimate is not None and is_number(estimate.value) and number(estimate.value) == best
    return estimated(estimate, "best" if is_best else "")


def _forest(differences: Sequence[Difference], metric: str) -> Forest | None:
    rows = [
        Row(d.against, d.metrics[metric])
        for d in differences
        if metric in d.metrics and d.metrics[metric].value is not None
    ]
    if not rows:
        return None
    side = "left" if metric in LESS else "right"
    caption = f"The ensemble minus the other: {side} of the line the ensemble is better."
    return forest(f"{label(metric)}: difference", rows, caption=caption, reference=0)


def _finding(differences: Sequence[Difference]) -> str:
    start = "Everyone on the same images; a star marks the best of a column, ↓ less is better."
    against = next((d for d in differences if "best single" in d.against), None)
    if against is None or "nll" not in against.metrics:
        return start
    e = against.metrics["nll"]
    if e.value is None or e.low is None or e.high is None:
        return start
    if e.low <= 0 <= e.high:
        verdict = "no clear difference from"
    else:
        verdict = "clearly better than" if e.high < 0 else "clearly worse than"
    return (
        f"{start} By its {words('nll')} the ensemble is {verdict} the best single candidate: "
        f"{e.value:+.3f} ({e.low:+.3f} to {e.high:+.3f})."
    )
