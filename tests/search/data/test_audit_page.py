"""The audit's page, read with the standard library's parser."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from search.config import AuditConfig
from search.data.audit import audit_dataset
from search.data.audit_page import SHOWN, TOGETHER, write_audit_page
from search.data.facts import gather_facts


class Reader(HTMLParser):
    """Collects the tags with their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def noise(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def table_of(paths: list[Path], raw_labels: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "image": [f"s/{path.name}" for path in paths],
            "image_id": [path.stem for path in paths],
            "path": [str(path) for path in paths],
            "source": "s",
            "raw_label": raw_labels,
            "label": [int(label == "melanoma") for label in raw_labels],
            "split": None,
            "lesion": None,
            "patient": None,
            "sex": ["male", *[None] * (len(paths) - 1)],
        }
    )
    return table.astype(object).astype({"label": "int64"})


def page_of(table: pd.DataFrame, folder: Path) -> Reader:
    facts = gather_facts(table["path"].tolist())
    config = AuditConfig(near_distance=0)
    audit = audit_dataset(table, facts, config, classes=["benign", "malignant"], given_split=False)
    path = folder / "pages" / "audit.html"
    write_audit_page(path, audit, table, facts)
    assert [entry.name for entry in path.parent.iterdir()] == ["audit.html"]
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


@pytest.fixture
def conflict(tmp_path: Path) -> pd.DataFrame:
    """One picture under two labels, one of them with markup in it, and a damaged file."""
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    noise(paths[0], 0)
    noise(paths[1], 0)
    paths[2].write_bytes(b"")
    return table_of(paths, ["<script>nevus</script>", "melanoma", "melanoma"])


def test_the_page_loads_nothing_from_anywhere(conflict: pd.DataFrame, tmp_path: Path) -> None:
    page = page_of(conflict, tmp_path)
    sources = [tag.get("src") or "" for tag in page.all("img")]
    assert sources
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(
        (tag["href"] or "").startswith(("#", "data:")) for tag in page.all("a") + page.all("link")
    )


def test_labels_are_text_and_never_markup(conflict: pd.DataFrame, tmp_path: Path) -> None:
    page = page_of(conflict, tmp_path)
    assert page.all("script") == []
    assert "<script>nevus</script>" in page.text


def test_every_picture_has_a_text_in_its_place(conflict: pd.DataFrame, tmp_path: Path) -> None:
    page = page_of(conflict, tmp_path)
    assert {tag["alt"] for tag in page.all("img")} == {"<script>nevus</script>, a", "melanoma, b"}
    broken = [tag for tag in page.all("div") if tag.get("role") == "img"]
    assert [tag["aria-label"] for tag in broken] == ["c cannot be shown"]


def test_findings_with_images_are_linked_from_the_summary(
    conflict: pd.DataFrame, tmp_path: Path
) -> None:
    page = page_of(conflict, tmp_path)
    targets = {(tag["href"] or "").removeprefix("#") for tag in page.all("a")}
    assert targets == {"damaged", "label_conflicts", "duplicates", "missing_metadata"}
    assert targets <= {tag.get("id") for tag in page.all("h2")}


def test_the_page_says_what_it_is_not(conflict: pd.DataFrame, tmp_path: Path) -> None:
    page = page_of(conflict, tmp_path)
    assert "Educational and research use; not a medical device." in page.text


def test_long_findings_are_cut_and_say_so(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i:03}.png" for i in range(SHOWN + 3)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    page = page_of(table_of(paths, ["nevus"] * len(paths)), tmp_path)
    assert len(page.all("img")) == SHOWN + TOGETHER  # tiny images alone, duplicates together
    assert f"and {len(paths) - TOGETHER} more" in page.text
    assert "and 3 more" in page.text


def test_a_file_that_vanished_since_is_shown_as_broken(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in paths:
        noise(path, 1)
    table = table_of(paths, ["nevus", "nevus"])
    facts = gather_facts(table["path"].tolist())
    audit = audit_dataset(table, facts, AuditConfig(), classes=["benign"], given_split=False)
    paths[0].unlink()
    write_audit_page(tmp_path / "audit.html", audit, table, facts)
    assert "a cannot be shown" in (tmp_path / "audit.html").read_text(encoding="utf-8")
