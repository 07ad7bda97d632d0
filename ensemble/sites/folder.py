"""Where the results lie: sites/<value>.json and .parquet, written as soon as each site is done."""

import hashlib
import json
import re
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from ensemble.sites.results import SiteResult
from search.atomic import write_json
from search.tables import write_table

LONGEST = 48  # characters of a site's name in a file's


def file_name(site: str) -> str:
    """A site's name as a file's, without an ending: safe on any disk, and different for each.

    A name that must be changed for it gets six digits of its hash.
    """
    safe = re.sub(r"[^a-z0-9_-]+", "_", site.lower()).strip("_")[:LONGEST]
    if safe and safe == site:
        return safe
    return f"{safe or 'site'}-{hashlib.sha256(site.encode()).hexdigest()[:6]}"


def read_site(folder: Path, site: str, digest: str) -> SiteResult | None:
    """A site's result, where it is there and of the same plan."""
    path = folder / f"{file_name(site)}.json"
    try:
        found = SiteResult.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, ValidationError):  # a damaged one is done again
        return None
    return found if found.digest == digest else None


def write_site(folder: Path, result: SiteResult, probs: pd.DataFrame) -> None:
    """Write a site's probabilities, then its result: where that is there, it is whole."""
    write_table(folder / f"{file_name(result.site)}.parquet", probs)
    write_json(folder / f"{file_name(result.site)}.json", result.model_dump(mode="json"))
