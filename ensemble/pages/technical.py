"""Sections that say what the bundle consists of, what was checked, and all numbers in full."""

from ensemble.manifest import Cascade, Manifest
from ensemble.pages.choices import choice_sections
from ensemble.pages.story import Story
from ensemble.pages.tables import (
    Cell,
    Section,
    Table,
    arrow,
    estimated,
    figure,
    interval,
    label,
    metrics_of,
    text,
)
from search.params import Config
from search.report.canvas import percent, plural

SKIPPED = 100  # images listed
SURVIVORS = 40  # subsets of members listed
LONG = 8  # numbers of a calibrator's parameter that are printed


def technical_sections(story: Story) -> list[Section]:
    """All that have data, in the order of the page."""
    made = [
        _gates(story),
        *choice_sections(story),
        *_anatomy(story.manifest),
        _metrics(story),
        _classes(story),
        _subgroups(story),
        _skipped(story),
    ]
    return [section for section in made if section is not None]


def calibrator_text(calibrator: Config) -> str:
    """A calibrator's kind and parameters: temperature (temperature 1.300)."""
    fields = calibrator.model_dump(mode="json")
    kind = fields.pop("kind", "none")
    told = [f"{name} {_brief(value)}" for name, value in fields.items()]
    return f"{kind} ({', '.join(told)})" if told else str(kind)


def _brief(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_brief(v)}" for key, v in value.items())
    if isinstance(value, list):
        shown = ", ".join(_brief(v) for v in value[:LONG])
        return f"[{shown}{f', … {len(value):,} in all' if len(value) > LONG else ''}]"
    return str(value)


def _gates(story: Story) -> Section | None:
    forced = story.manifest.gates if story.manifest else []
    if not story.verdicts and not forced:
        return None
    rows = [
        [
            text(v.gate),
            text("holds" if v.holds else "failed", tone="good" if v.holds else "warn"),
            text(v.rule),
        ]
        for v in story.verdicts
    ]
    failed = sum(not v.holds for v in story.verdicts)
    finding = f"{len(rows) - failed} of {plural(len(rows), 'rule')} set beforehand hold."
    if forced:
        finding += f" Overridden by force: {', '.join(forced)}."
    tables = [Table("Gates", ["Gate", "Verdict", "Rule"], rows)] if rows else []
    tone = "warn" if failed or forced else ""
    return Section("gates", "Gates", finding, tables=tables, tone=tone)


def _anatomy(manifest: Manifest | None) -> list[Section]:
    if manifest is None:
        return []
    made = [_members(manifest), _survivors(manifest), _cascade(manifest.cascade)]
    return [section for section in made if section is not None]


def _members(m: Manifest) -> Section:
    rows = [
        [
            text(x.name, f"recipe {x.recipe}" if x.recipe else ""),
            text(x.params.backbone),
            Cell(str(x.preprocessing.size), is_number=True),
            figure(x.weight),
            Cell(str(len(x.networks)), is_number=True),
            Cell(f"{x.params_m:.2f} M", is_number=True),
            Cell(f"{x.latency_ms:.1f} ms", is_number=True),
            Cell(f"{max(n.parity for n in x.networks):.0e}", is_number=True),
        ]
        for x in m.members
    ]
    columns = [
        *("Member", "Backbone", "Pixels", "Weight", "Networks", "Params", "Latency"),
        "ONNX off by",
    ]
    params, latency = (
        sum(getattr(x, name) for x in m.members) for name in ("params_m", "latency_ms")
    )
    finding = (
        f"{plural(len(m.members), 'member')}, {params:.2f} million parameters, {latency:.1f} ms an "
        f"image on one CPU thread; calibrated by {calibrator_text(m.calibrator)}."
    )
    shares = [
        f"{name}: {percent(share)} of images when calibrated"
        for name, share in m.prevalence.items()
    ]
    items = [*shares, *(f"{key}: {_brief(value)}" for key, value in m.provenance.items())]
    return Section(
        "members", "Members", finding, tables=[Table("Members", columns, rows)], items=items
    )


def _survivors(m: Manifest) -> Section | None:
    if not m.survivors:
        return None
    rows = []
    for s in m.survivors[:SURVIVORS]:
        certified = [p.name for p in s.operating_points if p.certified]
        rows.append(
            [
                text(", ".join(s.members)),
                text(calibrator_text(s.calibrator)),
                text(", ".join(certified) or "none", tone="good" if certified else "warn"),
            ]
        )
    ready = sum(any(p.certified for p in s.operating_points) for s in m.survivors)
    subsets = plural(len(m.survivors), "subset")
    finding = (
        f"If members are lost: {subsets} of them have a calibrator and thresholds of their own, "
        f"{ready} with a certified operating point."
    )
    columns = ["Members left", "Calibrator", "Certified"]
    cut = [f"and {len(m.survivors) - SURVIVORS:,} more"] if len(m.survivors) > SURVIVORS else []
    table = Table("Surviving members", columns, rows)
    return Section("survivors", "When members are lost", finding, tables=[table], items=cut)


def _cascade(cascade: Cascade | None) -> Section | None:
    if cascade is None:
        return None
    stages = [
        [
            text(f"stage {k}"),
            text(", ".join(stage.members)),
            text("; ".join(f"{name} {percent(share)}" for name, share in stage.leaving.items())),
            text(
                "; ".join(
                    f"{e.point}: below {e.negative_below:.3f} or from {e.positive_from:.3f}"
                    for e in stage.exits
                )
            ),
        ]
        for k, stage in enumerate(cascade.stages, 1)
    ]
    agreements = [
        [
            text(a.point),
            Cell(f"{a.disagreements:,} of {a.n:,}", is_number=True),
            Cell(percent(a.at_most), is_number=True),
            Cell(percent(a.cost), is_number=True),
        ]
        for a in cascade.agreements
    ]
    least = min((a.cost for a in cascade.agreements), default=1.0)
    most = max((a.at_most for a in cascade.agreements), default=1.0)
    finding = (
        f"Asking members one by one takes down to {percent(least)} of the time, and decides "
        f"otherwise than all together in at most {percent(most)} of cases "
        f"({percent(cascade.confidence)} confidence)."
    )
    tables = [
        Table("Agreement", ["Point", "Decided otherwise", "At most", "Cost"], agreements),
        Table("Stages", ["Stage", "Members asked", "Stops here", "Where"], stages),
    ]
    return Section("cascade", "Cascade", finding, tables=tables)


def _metrics(story: Story) -> Section:
    e = story.evaluation
    rows = [
        [text(arrow(name)), figure(value.value), Cell(interval(value) or "–", is_number=True)]
        for name, value in e.metrics.items()
    ]
    what = (
        "Rates and areas are means over the classes."
        if e.positive is None
        else f"Rates and areas are of {e.positive} against the rest, the decision being the most "
        "probable class."
    )
    finding = f"{len(rows)} numbers with 95% intervals. {what} ↓ less is better."
    tables = [Table("Metrics", ["Metric", "Value", "95% interval"], rows)]
    return Section("metrics", "All metrics", finding, tables=tables)


def _classes(story: Story) -> Section:
    found = story.evaluation.per_class
    shown = metrics_of(found)
    rows = [
        [
            text(c.name),
            Cell(f"{c.n:,}", is_number=True),
            *(estimated(c.metrics.get(name)) for name in shown),
        ]
        for c in found
    ]
    finding = "Each class against the rest, the decision being the most probable class."
    columns = ["Class", "Images", *map(arrow, shown)]
    return Section("classes", "Classes", finding, tables=[Table("Classes", columns, rows)])


def _subgroups(story: Story) -> Section | None:
    groups = story.evaluation.subgroups
    if not groups:
        return None
    shown = metrics_of(groups)
    rows = [
        [
            text(g.value, g.column),
            Cell(f"{g.n:,}", is_number=True),
            Cell("–" if g.n_positive is None else f"{g.n_positive:,}", is_number=True),
            *(estimated(g.metrics.get(name)) for name in shown),
        ]
        for g in groups
    ]
    finding = f"{plural(len(groups), 'group')}: {', '.join(map(label, shown))}."
    columns = ["Group", "Images", "Positive", *map(arrow, shown)]
    tables = [Table("Subgroups in full", columns, rows)]
    return Section("groups", "Subgroups in full", finding, tables=tables)


def _skipped(story: Story) -> Section | None:
    skipped = story.evaluation.skipped
    if not skipped:
        return None
    items = [f"{path}: {problem}" for path, problem in list(skipped.items())[:SKIPPED]]
    if len(skipped) > SKIPPED:
        items.append(f"and {len(skipped) - SKIPPED:,} more")
    finding = f"{plural(len(skipped), 'image')} could not be read and count for nothing above."
    return Section("skipped", "Skipped images", finding, items=items, tone="warn")
