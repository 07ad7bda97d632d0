"""The model card: what a bundle is, how well it does, and what it is not for, in Markdown."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ensemble.pages.checklists import load_checklists
from ensemble.pages.comparison import leaderboard_table
from ensemble.pages.robustness import kinds_of
from ensemble.pages.story import Story
from ensemble.pages.summary import group_metric
from ensemble.pages.tables import arrow, label, told
from ensemble.pages.technical import calibrator_text
from search.report.canvas import number, percent, plural

RARE = 30  # test images of a class, below which its numbers say little
FAR = 0.02  # shares of a class apart, from which probabilities are no longer of this prevalence
# CommonMark: these start markup anywhere, an underscore only at a word's edge; "|" ends a cell.
MARKUP = re.compile(r"[\\`*<\[\]|&~]|(?<!\w)_|_(?!\w)")


def render_card(story: Story, licences: str = "not stated") -> str:
    """The card of a bundle.

    Args:
        story: with a manifest.
        licences: of the data and the pretrained weights, in the user's words.

    Raises:
        ValueError: the story has no manifest.
    """
    if story.manifest is None:
        raise ValueError("a card is of a bundle; the story has no manifest")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=escape,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    environment.filters |= {
        **{"number": number, "percent": percent, "label": label, "arrow": arrow, "told": told},
        **{"plural": plural, "calibrator": calibrator_text},
    }
    metric = group_metric(story)
    return environment.get_template("card.md.j2").render(
        manifest=story.manifest,
        e=story.evaluation,
        licences=licences,
        sealed=story.is_sealed,
        board=leaderboard_table(story.leaderboard) if story.leaderboard else None,
        measured={p.name: p for p in story.evaluation.operating_points},
        verdicts=story.verdicts,
        group_metrics=[m for m in dict.fromkeys((metric, "auroc")) if m is not None and metric],
        shift=prevalence_rows(story),
        shifted=is_shifted(story),
        worse=worst_rows(story),
        worse_by=worst_metric(story),
        checklists=load_checklists(),
        rare=[c.name for c in story.evaluation.per_class if c.n < RARE],
        few=RARE,
    )


def prevalence_rows(story: Story) -> list[tuple[str, float | None, float | None]]:
    """Each class with its share when calibrated, and in the test."""
    before = story.manifest.prevalence if story.manifest else {}
    now = story.evaluation.prevalence
    return [(name, before.get(name), now.get(name)) for name in story.evaluation.classes]


def is_shifted(story: Story) -> bool:
    """Whether a class is clearly rarer or more frequent in the test than when calibrated."""
    known = [(a, b) for _, a, b in prevalence_rows(story) if a is not None and b is not None]
    return any(abs(a - b) > FAR for a, b in known)


def worst_rows(story: Story) -> list[tuple[str, list[str]]]:
    """Each kind of corruption with the metrics at severities 1, 3 and 5, as they are printed."""
    rows, metric = story.evaluation.corruptions, worst_metric(story)
    found = {(r.kind, r.severity): r.metrics.get(metric) for r in rows}
    table = []
    for kind in kinds_of(rows):
        cells = [found.get((kind, severity)) for severity in (1, 3, 5)]
        table.append((kind, ["–" if e is None else told(e) for e in cells]))
    return table


def worst_metric(story: Story) -> str:
    """The metric that robustness is told by."""
    there = {name for r in story.evaluation.corruptions for name in r.metrics}
    return "auroc" if "auroc" in there else min(there, default="auroc")


def escape(value: Any) -> Markup:
    """Text that Markdown shows as it is, on one line."""
    line = re.sub(r"\s+", " ", str(value))
    return Markup(MARKUP.sub(lambda sign: "\\" + sign[0], line))  # noqa: S704
