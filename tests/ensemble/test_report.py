"""The report, read with the standard library's parser."""

import json
from html.parser import HTMLParser
from typing import Any

from ensemble.report import Curve

CURVES = [
    Curve("trial 0", [{"nll": 0.7}, {"nll": 0.4}], True),
    Curve("trial 1", [{"nll": 9}], False),
]


class Reader(HTMLParser):
    """Collects the tags with their attributes, the text, and the script of the figures."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts = "", [""]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def charts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[2])
        return found
