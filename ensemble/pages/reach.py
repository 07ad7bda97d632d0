"""Sections that say where the bundle does worse: groups, bad images, foreign ones, errors."""

from ensemble.evaluation.results import Estimate
from ensemble.pages.forest import Forest, Row, forest
from ensemble.pages.robustness import corruption_figure, kinds_of
from ensemble.pages.story import Story
from ensemble.pages.summary import group_metric, whole_of
from ensemble.pages.tables import Cell, Section, Table, figure, label, text
from search.report.canvas import chart, number, percent, plural

MEASURED = ("auroc", "sensitivity", "nll")  # of corrupted images, the first two that are there


def reach_sections(story: Story) -> list[Section]:
    """All that have data, in the order of the page."""
    made = (_subgroups(story), _corruptions(story), _novelty(story), _examples(story))
    return [section for section in made if section is not None]


def _subgroups(story: Story) -> Section | None:
    metric = group_metric(story)
    if metric is None:
        return None
    shown = [metric, *(["auroc"] if metric != "auroc" else [])]
    forests = [f for f in (_group_forest(story, name) for name in shown) if f is not None]
    finding = (
        "The line is the value of all images. An interval that does not reach it is a group the "
        "bundle treats differently; a wide one is a group with too few images to tell."
    )
    return Section("subgroups", "Subgroups", finding, forests=forests)


def _group_forest(story: Story, metric: str) -> Forest | None:
    groups = [g for g in story.evaluation.subgroups if metric in g.metrics]
    whole = whole_of(story, metric)
    rows = [Row("all images", whole, f"n {story.evaluation.n_images:,}")]
    columns = list(dict.fromkeys(g.column for g in groups))
    for g in sorted(groups, key=lambda g: columns.index(g.column)):
        e = g.metrics[metric]
        few = "" if g.n_positive is None else f", {g.n_positive:,} positive"
        below = e.high is not None and whole.value is not None and e.high < whole.value
        rows.append(Row(g.value, e, f"n {g.n:,}{few}", g.column, "warn" if below else ""))
    if not any(row.estimate.value is not None for row in rows[1:]):
        return None
    at = story.point.name if story.point is not None and metric == "sensitivity" else ""
    name = label(metric) + (f" at {at}" if at else "")
    return forest(name, rows, reference=whole.value, bounds=(0, 1))


def _corruptions(story: Story) -> Section | None:
    rows = story.evaluation.corruptions
    there = [m for m in MEASURED if any(m in r.metrics for r in rows)][:2]
    if not kinds_of(rows) or not there:
        return None
    charts = [
        chart(f"worse-{m}", label(m), corruption_figure(rows, m), 420, caption=_worst(story, m))
        for m in there
    ]
    finding = (
        f"The same on {max(r.n for r in rows):,} of these images made worse on purpose, in "
        f"{len(kinds_of(rows))} ways and five severities. {charts[0].caption}"
    )
    return Section("corruptions", "Bad images", finding, charts)


def _worst(story: Story, metric: str) -> str:
    """What becomes of a metric at the severity that hurts it most."""
    found: list[tuple[float, str, int]] = [
        (value, r.kind, r.severity)
        for r in story.evaluation.corruptions
        if r.severity and (value := _value(r.metrics.get(metric))) is not None
    ]
    if not found:
        return ""
    value, kind, severity = (max if metric == "nll" else min)(found)
    clean = [_value(r.metrics.get(metric)) for r in story.evaluation.corruptions if not r.severity]
    start = f" from {number(clean[0])}" if clean else ""
    return f"{label(metric)} goes{start} to {number(value)} at worst ({kind}, severity {severity})."


def _novelty(story: Story) -> Section | None:
    novelty = story.manifest.out_of_distribution if story.manifest else None
    if novelty is None:
        return None
    columns = ["Kind of image", "Images", "AUROC", "Flagged"]
    rows = [
        [
            text(kind.kind),
            Cell(f"{kind.n:,}", is_number=True),
            figure(kind.auroc),
            Cell(percent(kind.flagged), is_number=True),
        ]
        for kind in novelty.measured
    ]
    finding = (
        f"Images unlike the training data are flagged by their distance to it, in the features of "
        f"{novelty.member}. Of held-back images that belong, {percent(novelty.flagged_held_back)} "
        "are flagged, too. Nothing is claimed of kinds not measured here."
    )
    table = Table("Images that do not belong", columns, rows)
    return Section("novelty", "Images that do not belong", finding, tables=[table] if rows else [])


def _examples(story: Story) -> Section | None:
    shown = [e for e in story.examples if e.thumbnail.startswith("data:image/")]
    if not shown:
        return None
    finding = f"{plural(len(shown), 'image')} that came out wrong, with the probability they got."
    return Section("examples", "Errors to look at", finding, examples=shown)


def _value(estimate: Estimate | None) -> float | None:
    return None if estimate is None else estimate.value
