"""The report: one page of figures and tables that opens without a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.pages.clinical import clinical_sections
from ensemble.pages.comparison import comparison_section
from ensemble.pages.story import Story
from ensemble.pages.summary import summary_of
from ensemble.pages.tables import Section
from ensemble.pages.technical import technical_sections
from search.location import Place
from search.report.canvas import plural, write_charts_page


@dataclass(frozen=True)
class Part:
    """Sections for one kind of reader; folded ones show what was found, and the rest on demand."""

    title: str
    about: str
    sections: Sequence[Section]
    is_folded: bool = False


def write_report(path: Place, story: Story) -> None:
    """Write the page as one file that loads nothing; sections without data are left out."""
    comparison = comparison_section(story)
    parts = [
        Part(
            "How well it does",
            "For everyone: what it does to these images, how surely, and to whom.",
            [*([comparison] if comparison else []), *clinical_sections(story)],
        ),
        Part(
            "How it was made",
            "For engineers: open a line for its figures and tables.",
            technical_sections(story),
            is_folded=True,
        ),
    ]
    parts = [part for part in parts if part.sections]
    write_charts_page(
        path,
        Path(__file__).parent,
        charts=[chart for part in parts for section in part.sections for chart in section.charts],
        title=story.title,
        about=_about(story),
        notes=story.notes,
        summary=summary_of(story),
        parts=parts,
    )


def _about(story: Story) -> str:
    e, manifest = story.evaluation, story.manifest
    by = ""
    if manifest is not None:
        members = plural(len(manifest.members), "member")
        by = f", by {manifest.name} {manifest.version} with {members}"
    return f"{plural(e.n_images, 'image')} in {len(e.classes)} classes{by}."
