"""The model card: what a bundle is, how well it does, and what it is not for, in Markdown."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ensemble.bundle import Manifest
from ensemble.evaluate import Evaluation
from ensemble.report import leaderboard_cells
from search.objectives import LOWER_IS_BETTER
from search.report.canvas import label, number, percent

RARE = 30  # test images of a class, below which its numbers say little
# CommonMark: these start markup anywhere, an underscore only at a word's edge; "|" ends a cell.
MARKUP = re.compile(r"[\\`*<\[\]|&~]|(?<!\w)_|_(?!\w)")


def render_card(
    manifest: Manifest, evaluation: Evaluation | None, leaderboard: Sequence[dict[str, Any]]
) -> str:
    """The card of a bundle.

    Args:
        evaluation: on the sealed test; None where there was none.
        leaderboard: rows with equal keys; "who" is "ensemble" in the bundle's own.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=escape,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent, "label": label}
    return environment.get_template("card.md.j2").render(
        manifest=manifest,
        evaluation=evaluation,
        leaderboard=leaderboard,
        cells=leaderboard_cells(leaderboard),
        less=LOWER_IS_BETTER,
        rare=RARE,
        measured={p["name"]: p for p in evaluation.operating_points} if evaluation else {},
    )


def escape(value: Any) -> Markup:
    """Text that Markdown shows as it is, on one line."""
    line = re.sub(r"\s+", " ", str(value))
    return Markup(MARKUP.sub(lambda sign: "\\" + sign[0], line))  # noqa: S704
