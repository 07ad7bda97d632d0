"""The audit as one page: every finding with its images side by side, readable without a network."""

import base64
import io
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from search.data.audit import Audit, Finding
from search.data.dataset import STANDARD
from search.data.images import open_image
from search.errors import DamagedImageError
from search.location import Place
from search.pages import page_environment, write_page

SHOWN = 24  # groups a finding
TOGETHER = 6  # images a group
SIDE = 128  # pixels of a thumbnail's longer side
TITLES = {
    "damaged": "Damaged files",
    "tiny": "Tiny images",
    "non_rgb": "Images that are not RGB",
    "missing_metadata": "Missing metadata",
    "label_conflicts": "Label conflicts",
    "duplicates": "Duplicates",
    "near_duplicates": "Near-duplicates",
    "leaks": "Leaks across the given split",
}
MEANINGS = {
    "damaged": "Files that are missing, empty or do not decode in full cannot be trained on.",
    "tiny": "Too few pixels to show what a diagnosis rests on.",
    "non_rgb": "Grey, palette or transparent images are converted; one class full of them is a cue "
    "that has nothing to do with the diagnosis.",
    "missing_metadata": "Blank lesion or patient ids hide which images belong together; other "
    "blanks limit what results can be broken down by.",
    "label_conflicts": "The same picture under several labels: at most one of them is right.",
    "duplicates": "The same file, or the same pixels in another file, counts more than once.",
    "near_duplicates": "Pictures that nearly agree: another size, crop or compression, or the same "
    "lesion again. They share a group of the splits.",
    "leaks": "Linked images on both sides of the split that comes with the data: a score on its "
    "test would partly be memory.",
}
EFFECTS = {"drop": "is dropped", "error": "stops the command", "keep": "is kept"}


@dataclass(frozen=True)
class Thumbnail:
    """One image as the page shows it; uri is empty where it cannot be decoded."""

    uri: str
    image: str
    image_id: str
    label: str
    split: str


@dataclass(frozen=True)
class Section:
    """One finding as the page shows it."""

    finding: Finding
    title: str
    meaning: str
    effect: str
    groups: list[list[Thumbnail]]

    @property
    def count(self) -> int:
        return len(self.finding.groups)


def write_audit_page(path: Place, audit: Audit, table: pd.DataFrame, facts: pd.DataFrame) -> None:
    """Write the page as one file that loads nothing.

    Args:
        audit: of the table.
        table: dataset table, before the policies.
        facts: a row for each path of the table, in any order.
    """
    damaged = set(facts.loc[facts["problem"].notna(), "path"])
    thumbnails = _thumbnails(audit, table, damaged)
    write_page(
        path,
        page_environment(Path(__file__).parent).get_template("audit.html.j2"),
        audit=audit,
        sections=[_section(finding, audit, thumbnails) for finding in audit.findings],
        balance=_balance(audit),
        blanks=table[[name for name in table.columns if name not in STANDARD]].isna().mean(),
    )


def _balance(audit: Audit) -> dict[str, dict[str, int]]:
    mapped, raw = audit.class_balance["mapped"], audit.class_balance["raw"]
    return {"Classes": mapped} if mapped == raw else {"Classes": mapped, "Labels": raw}


def _section(finding: Finding, audit: Audit, thumbnails: Mapping[str, Thumbnail]) -> Section:
    idle = finding.kind == "leaks" and not audit.given_split
    return Section(
        finding=finding,
        title=TITLES[finding.kind],
        meaning=MEANINGS[finding.kind],
        effect="no effect, splits are drawn anew" if idle else EFFECTS[finding.policy],
        groups=[[thumbnails[image] for image in group] for group in _shown(finding)],
    )


def _shown(finding: Finding) -> list[tuple[str, ...]]:
    if finding.kind == "missing_metadata":  # an image with a blank looks like any other
        return []
    return [group[:TOGETHER] for group in finding.groups[:SHOWN]]


def _thumbnails(audit: Audit, table: pd.DataFrame, damaged: Container[str]) -> dict[str, Thumbnail]:
    wanted = {image for finding in audit.findings for group in _shown(finding) for image in group}
    rows = table[table["image"].isin(wanted)]
    return {
        row["image"]: Thumbnail(
            uri="" if row["path"] in damaged else _data_uri(row["path"]),
            image=row["image"],
            image_id=row["image_id"],
            label=row["raw_label"],
            split="" if pd.isna(row["split"]) else row["split"],
        )
        for row in rows.to_dict("records")
    }


def _data_uri(path: str) -> str:
    try:
        image = open_image(path, at_least=SIDE)
    except DamagedImageError:  # since the facts were gathered
        return ""
    image.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
