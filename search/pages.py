"""What the HTML pages share: a base with their style, and how each is written."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from search.atomic import write_text
from search.location import Place


def page_environment(*folders: Path) -> Environment:
    """Templates of the folders, the first that has a name, above the base in this one.

    Values are text, never markup, and one that is not given is an error.
    """
    return Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
    )


def write_page(path: Place, template: Template, **shown: Any) -> None:
    """Write a page as one file that loads nothing."""
    # A file name may hold bytes that are no text; a page with a "?" there is still a page.
    write_text(path, template.render(shown).encode("utf-8", "replace").decode())
