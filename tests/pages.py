"""A page as its reader's browser takes it apart."""

import json
from html.parser import HTMLParser
from typing import Any


class Reader(HTMLParser):
    """Collects the tags with their attributes, the text and the scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def charts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[1])
        return found

    @property
    def sections(self) -> list[str | None]:
        return [tag.get("id") for tag in self.all("h2")]
