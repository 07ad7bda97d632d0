"""From a config to the images a study may use: dataset, audit, splits, and the seal."""

import platform
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import pandas as pd

from search.atomic import write_json
from search.config import ExperimentConfig
from search.data.audit import Audit, apply_policies, audit_dataset, digest_rows, link_groups
from search.data.audit_page import write_audit_page
from search.data.dataset import Dataset, load_dataset
from search.data.facts import gather_facts
from search.data.splits import TEST, make_splits, splits_hash
from search.errors import StudyError
from search.location import Place
from search.study.records import StudyFolder, StudyHead
from search.tables import read_table, write_table

LIBRARIES = ("ray", "optuna", "torch", "torchvision", "timm", "albumentations", "numpy", "pandas")
FACTS = "facts.parquet"  # in the output folder
Progress = Callable[[str, int, int], None]  # what, how many are done, of how many


@dataclass(frozen=True)
class AuditedData:
    """A dataset with the facts of its files and what the audit found."""

    dataset: Dataset
    facts: pd.DataFrame
    audit: Audit


def known_facts(config: ExperimentConfig) -> pd.DataFrame | None:
    """Facts of the files as the experiment's last audit found them; None if they are not there."""
    try:
        return read_table(config.output / FACTS)
    except StudyError:  # they only save time
        return None


def keep_facts(config: ExperimentConfig, facts: pd.DataFrame) -> None:
    """Let later audits take these facts over."""
    write_table(config.output / FACTS, facts)


def read_data(
    config: ExperimentConfig, known: pd.DataFrame | None, progress: Progress = lambda *_: None
) -> tuple[Dataset, pd.DataFrame]:
    """The images as they are now, and the facts of their files, row by row.

    Args:
        known: facts that are taken over where a file's size and time still agree.
        progress: hears of the files that are read.
    """
    dataset = load_dataset(config.dataset)
    paths = dataset.table["path"].tolist()
    facts = gather_facts(
        paths,
        known=known,
        stamps=dataset.stamps,
        progress=lambda done: progress("audit", done, len(set(paths))),
    )
    return dataset, facts


def data_digest(dataset: Dataset, facts: pd.DataFrame) -> str:
    """What the data are, in the terms of StudyHead.data_digest; see read_data."""
    return digest_rows(dataset.table, facts)


def audit_data(
    config: ExperimentConfig, folder: Place, progress: Progress = lambda *_: None
) -> AuditedData:
    """Read every image, and write audit.json and audit.html into a folder.

    Facts of files that did not change since the experiment's last audit are taken over; they lie
    in facts.parquet of its output folder.
    """
    dataset, facts = read_data(config, known_facts(config), progress)
    audit = audit_dataset(
        dataset.table,
        facts,
        config.audit,
        classes=dataset.classes,
        given_split=config.splits.given,
    )
    keep_facts(config, facts)
    write_json(folder / "audit.json", audit.to_json())
    write_audit_page(folder / "audit.html", audit, dataset.table, facts)
    return AuditedData(dataset, facts, audit)


def take_in(
    config: ExperimentConfig, study: StudyFolder, progress: Progress = lambda *_: None
) -> StudyHead:
    """Audit the data, apply the policies, divide the images, and seal the test.

    Returns:
        the study's head, not yet written: study.json comes last, when all else is there.

    Raises:
        AuditError: findings that the policy does not let pass.
        SplitError: the groups cannot be divided as asked.
    """
    data = audit_data(config, study.path, progress)
    given = config.splits.given
    table = apply_policies(data.dataset.table, data.audit, given_split=given)
    groups = link_groups(table, data.facts, config.audit)
    splits = make_splits(
        table, groups, config.splits, classes=data.dataset.classes, seed=config.seed
    )
    digests = data.facts.drop_duplicates("path").set_index("path")["file_digest"]
    table = table.assign(
        group=splits["group"].to_numpy(),
        part=splits["part"].to_numpy(),
        fold=splits["fold"].to_numpy(),
        digest=digests.reindex(table["path"]).to_numpy(),
    )
    sealed = table["part"] == TEST
    write_table(study.path / "sealed" / "test.parquet", table[sealed])
    write_table(study.path / "splits.parquet", table[~sealed])
    counts = table["part"].value_counts().to_dict()
    return StudyHead(
        name=config.name,
        storage_name=f"{config.name}-{uuid.uuid4().hex[:8]}",  # one database may hold many studies
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        classes=list(data.dataset.classes),
        positive=config.dataset.positive,
        objective=config.objectives[0],
        objectives=list(config.objectives),
        seed=config.seed,
        data_digest=data.audit.digest,
        splits_hash=splits_hash(splits),
        n_images={**counts, "dropped": len(data.dataset.table) - len(table)},
        versions={"python": platform.python_version(), **{n: version(n) for n in LIBRARIES}},
    )
