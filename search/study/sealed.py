"""The sealed test: written once by the splits, opened only by evaluation, every opening noted.

An import contract keeps this file out of everything that searches.
"""

import json
from datetime import UTC, datetime

import pandas as pd

from search.location import explained, read_bytes
from search.study.records import StudyFolder
from search.tables import read_table


def open_sealed_test(study: StudyFolder, *, purpose: str) -> pd.DataFrame:
    """The test's images, with the columns of the open ones.

    Args:
        purpose: noted with the time in sealed/openings.jsonl.
    """
    table = read_table(study.path / "sealed" / "test.parquet")
    note = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "purpose": purpose}
    path = study.path / "sealed" / "openings.jsonl"
    with explained(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(note) + "\n")
    return table


def count_openings(study: StudyFolder) -> int:
    """How often the test was opened: more than once, and its numbers lean towards good."""
    path = study.path / "sealed" / "openings.jsonl"
    try:
        return len(read_bytes(path).splitlines())
    except FileNotFoundError:
        return 0
