"""The audit of a dataset: every finding, what its policy does, and which images belong together."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from search.config import AuditConfig, Treatment
from search.data import findings
from search.data.dataset import STANDARD
from search.data.links import components, dataset_links
from search.errors import AuditError

PROTECTED = ("test", "val")  # of a given split: these images stay, the first before the second


@dataclass(frozen=True)
class Finding:
    """One kind of defect.

    Attributes:
        kind: the field of AuditConfig that decides about it.
        groups: `image` keys; alone, or together where images are at odds with each other.
        note: one line for people.
        policy: what is to be done.
    """

    kind: str
    groups: tuple[tuple[str, ...], ...]
    note: str
    policy: Treatment


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        findings: one a kind, be it empty, in the order in which their policies apply.
        counts: kind: name: number of images or groups, or share of blanks.
        class_balance: images per label, "raw" and "mapped".
        n_images: of the table that was audited.
        given_split: whether the split that comes with the data is used; else leaks do no harm.
        digest: SHA-256 over keys, file contents and raw labels: what the data are.
    """

    findings: tuple[Finding, ...]
    counts: dict[str, dict[str, float]]
    class_balance: dict[str, dict[str, int]]
    n_images: int
    given_split: bool
    digest: str

    def to_json(self) -> dict[str, Any]:
        """The same, in what JSON knows."""
        return asdict(self)

    def finding(self, kind: str) -> Finding:
        """The finding of a kind."""
        return next(finding for finding in self.findings if finding.kind == kind)


def audit_dataset(
    table: pd.DataFrame,
    facts: pd.DataFrame,
    config: AuditConfig,
    *,
    classes: Sequence[str],
    given_split: bool,
) -> Audit:
    """Look for every kind of defect.

    Args:
        table: dataset table.
        facts: a row for each path of the table, in any order.
        classes: names by class index.
        given_split: whether the split that comes with the data will be used.
    """
    n, facts = len(table), _align(table, facts)
    links = dataset_links(table, facts, config.near_distance)
    defects = {
        "damaged": findings.find_damaged(facts),
        "tiny": findings.find_tiny(facts, config.min_side),
        "non_rgb": findings.find_non_rgb(facts),
        "missing_metadata": findings.find_missing_metadata(table),
        "label_conflicts": findings.find_label_conflicts(table, links),
        "duplicates": findings.find_duplicates(links, n),
        "near_duplicates": findings.find_near_duplicates(links, n, config.near_distance),
        "leaks": findings.find_leaks(table, links, given_split=given_split),
    }
    images = table["image"].to_numpy()
    mapped = {name: int((table["label"] == i).sum()) for i, name in enumerate(classes)}
    return Audit(
        findings=tuple(
            Finding(kind, tuple(tuple(images[r]) for r in d.rows), d.note, getattr(config, kind))
            for kind, d in defects.items()
        ),
        counts={kind: dict(defect.counts) for kind, defect in defects.items()},
        class_balance={"raw": findings.tally(table["raw_label"]), "mapped": mapped},
        n_images=n,
        given_split=given_split,
        digest=digest_rows(table, facts),
    )


def apply_policies(table: pd.DataFrame, audit: Audit, *, given_split: bool) -> pd.DataFrame:
    """Stop at findings whose policy is "error", and take out what "drop" says.

    - duplicates, near_duplicates: one copy of each class stays, the one with the most metadata,
      then the first by key; of a given split rather one of its test.
    - label_conflicts: one copy stays where all are of one class, else none.
    - leaks: of a given split, what is linked to its test goes, then what is linked to its val.
      Splits drawn anew keep linked images together: then leaks neither stop nor drop.
    - the other kinds: the images themselves.

    Returns:
        the remaining rows, numbered anew.

    Raises:
        AuditError: naming each finding that stops, or where nothing is left.
    """
    active = [f for f in audit.findings if f.groups and (given_split or f.kind != "leaks")]
    _stop([finding for finding in active if finding.policy == "error"])
    order = _preference(table, given_split)
    about: dict[str, dict[str, Any]] = {
        str(row["image"]): {"label": row["label"], "split": row["split"]}
        for row in table[["image", "label", "split"]].to_dict("records")
    }
    kept = set(order)
    for finding in active:
        for group in _whole_groups(finding, audit) if finding.policy == "drop" else ():
            here = sorted(kept.intersection(group), key=order.__getitem__)
            kept -= _surplus(finding.kind, here, group, about)
    if len(table) and not kept:
        raise AuditError(
            f"the audit's policies drop all {len(table)} images; set some audit policy to keep"
        )
    return table[table["image"].isin(kept)].reset_index(drop=True)


def link_groups(table: pd.DataFrame, facts: pd.DataFrame, config: AuditConfig) -> NDArray[np.int64]:
    """Number of each image's group, (n_images,); a group must stay on one side of a split.

    Groups are what hangs together by a shared image_id, lesion or patient, by equal files or
    pixels, or by nearly equal pictures.

    Args:
        table: dataset table, before or after the policies.
        facts: a row for each path of the table, in any order.
    """
    links = dataset_links(table, _align(table, facts), config.near_distance)
    return components(len(table), *links.values())


def _stop(errors: Sequence[Finding]) -> None:
    if not errors:
        return
    first, *others = errors
    ways = "drop" if first.kind == "damaged" else "drop or keep"  # what does not decode cannot stay
    message = (
        f"audit: {first.kind}: {first.note}, for example {' and '.join(first.groups[0][:2])}; "
        f"set audit.{first.kind}: {ways} in the config"
    )
    for other in others:
        message += f"; likewise audit.{other.kind}: {other.note}"
    raise AuditError(message)


def _preference(table: pd.DataFrame, given_split: bool) -> dict[str, int]:
    """Position of each image among all, the copy to keep before the copies to drop."""
    blanks = table[[name for name in table.columns if name not in STANDARD]].isna().sum(axis=1)
    places = {side: place for place, side in enumerate(PROTECTED)}
    place = table["split"].map(lambda side: places.get(side, len(places)) if given_split else 0)
    keys = zip(place, blanks, table["image"], strict=True)
    return {image: i for i, (_, _, image) in enumerate(sorted(keys))}


def _whole_groups(finding: Finding, audit: Audit) -> Iterator[Sequence[str]]:
    """Groups with all copies of their pictures; near_duplicates lists one of each."""
    if finding.kind != "near_duplicates":
        yield from finding.groups
        return
    copies = {image: group for group in audit.finding("duplicates").groups for image in group}
    for group in finding.groups:
        yield [copy for image in group for copy in copies.get(image, (image,))]


def _surplus(
    kind: str, here: Sequence[str], group: Sequence[str], about: Mapping[str, dict[str, Any]]
) -> set[str]:
    """Which images of a group go.

    Args:
        here: those of the group that no earlier policy took out, the preferred first.
        group: all of it.
    """
    label = {image: about[image]["label"] for image in group}
    if kind in ("duplicates", "near_duplicates"):
        return set(here) - set({label[image]: image for image in reversed(here)}.values())
    if kind == "label_conflicts":
        return set(here[1:] if len(set(label.values())) == 1 else here)
    if kind == "leaks":
        sides = [{i for i in here if about[i]["split"] == side} for side in PROTECTED]
        return set(here) - next(filter(None, sides), set(here))
    return set(here)


def _align(table: pd.DataFrame, facts: pd.DataFrame) -> pd.DataFrame:
    by_path = facts.drop_duplicates("path").set_index("path")
    return by_path.loc[table["path"].tolist()].reset_index()


def digest_rows(table: pd.DataFrame, facts: pd.DataFrame) -> str:
    contents = facts["file_digest"].astype(object).where(facts["file_digest"].notna(), None)
    columns = (table["image"], contents, table["raw_label"])
    rows = sorted(zip(*(column.tolist() for column in columns), strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
