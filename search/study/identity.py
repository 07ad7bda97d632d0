"""Whether a config and its data are those that a study folder was made from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import ValidationError

from search.config import ExperimentConfig
from search.errors import StudyError
from search.location import read_bytes
from search.study.intake import Progress, data_digest, keep_facts, known_facts, read_data
from search.study.records import StudyFolder
from search.study.storage import shown

# What may change between a search and what follows: how much, where and on what, not what.
FREE = {
    "output", "study", "cache", "cache_gb", "budget", "resources", "ensemble", "pipeline",
    "tracking",
}  # fmt: skip
MOST = 5  # differences, and MOST_NAMES names of each kind of change: what one line bears
MOST_NAMES = 3
Difference = tuple[str, Any, Any]  # dotted key, then, now


def refuse_other(config: ExperimentConfig, folder: StudyFolder) -> None:
    """Refuse to mix two experiments in one study, and name what differs.

    Raises:
        StudyError: the study is another experiment's, or its config.yaml is damaged.
    """
    name = folder.head().name
    stored, given = _compared(stored_config(folder)), _compared(config)
    differences = list(_differences("", stored, given))
    if differences:
        told = [f"{key} {_short(then)}, now {_short(now)}" for key, then, now in differences[:MOST]]
        more = [f"and {len(differences) - MOST} more"] if len(differences) > MOST else []
        raise StudyError(
            f"{folder.path}: holds study {name!r} of another config: "
            f"{'; '.join(told + more)}; change it back, or choose another output folder"
        )


def stored_config(folder: StudyFolder) -> ExperimentConfig:
    """The config that a study was made from.

    Raises:
        StudyError: it is not there or damaged.
    """
    path = folder.path / "config.yaml"
    try:
        return ExperimentConfig.model_validate(yaml.safe_load(read_bytes(path)))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise StudyError(f"{path}: missing or damaged; choose another output folder") from error


def refuse_changed_data(
    config: ExperimentConfig, folder: StudyFolder, *, progress: Progress = lambda *_: None
) -> None:
    """Refuse to go on with other images, contents or labels than the study began with.

    Only files whose size or time changed are read, and the seal stays closed: which labels changed
    is told of the open images alone.

    Args:
        progress: hears of files that are read.

    Raises:
        StudyError: naming what was added, removed or changed.
        DatasetError: the data set cannot be read any more.
    """
    known, head = known_facts(config), folder.head()
    dataset, facts = read_data(config, known, progress)
    if data_digest(dataset, facts) == head.data_digest:
        keep_facts(config, facts)
        return
    changes = _changes(known, folder.open_images(), dataset.table, facts)
    then, now = sum(head.n_images.values()), len(dataset.table)
    rest = (
        f"{now} images, there were {then}"
        if now != then
        else "sealed or dropped images, or their labels"
    )
    raise StudyError(
        f"{folder.path}: the data set changed since this study began: "
        f"{', '.join(changes) or rest}; bring it back, or choose another output folder"
    )


def _compared(config: ExperimentConfig) -> dict[str, Any]:
    """What a study is made from; of the storage's URL without its password."""
    document = config.model_dump(exclude=FREE)
    return document | {"storage": config.storage and shown(config.storage)}


def _differences(key: str, then: Any, now: Any) -> Iterator[Difference]:
    """Leaves that differ; what is None might as well be absent."""
    if _sections(then) and _sections(now) and len(then) == len(now):
        then, now = dict(enumerate(then)), dict(enumerate(now))
    if isinstance(then, dict) and isinstance(now, dict):
        for name in {**then, **now}:
            below = f"{key}.{name}" if key else name
            yield from _differences(below, then.get(name), now.get(name))
    elif then != now:
        yield key, then, now


def _sections(value: Any) -> bool:
    """Whether it is a list of sections, such as the data set's sources."""
    return isinstance(value, list) and all(isinstance(part, dict) for part in value)


def _changes(
    known: pd.DataFrame | None, seen: pd.DataFrame, table: pd.DataFrame, facts: pd.DataFrame
) -> list[str]:
    """What happened to the files, and to the labels of the images that search may see."""
    # An audit since may have replaced the known facts, but not those beside the open images.
    before = _digests(known) | dict(zip(seen["path"], seen["digest"], strict=True))
    now = _digests(facts)
    added = sorted(now.keys() - before.keys()) if known is not None else []
    removed = sorted(before.keys() - now.keys())
    changed = sorted(path for path in before.keys() & now.keys() if before[path] != now[path])
    labels = dict(zip(table["image"], table["raw_label"], strict=True))
    other = [
        f"{Path(image).name}: {label}, now {labels[image]}"
        for image, label in zip(seen["image"], seen["raw_label"], strict=True)
        if labels.get(image, label) != label
    ]
    told = {"added": added, "removed": removed, "changed": changed}
    files = {
        f"image{'s' * (len(paths) > 1)} {what}": ["/".join(Path(p).parts[-2:]) for p in paths]
        for what, paths in told.items()
    }
    found = files | {f"label{'s' * (len(other) > 1)} changed": other}
    return [f"{len(names)} {what} ({_listed(names)})" for what, names in found.items() if names]


def _digests(facts: pd.DataFrame | None) -> dict[str, str]:
    """SHA-256 of every file that is there, by path."""
    if facts is None:
        return {}
    there = facts[facts["problem"] != "missing"]
    return dict(zip(there["path"], there["file_digest"], strict=True))


def _listed(names: list[str]) -> str:
    more = [f"and {len(names) - MOST_NAMES} more"] if len(names) > MOST_NAMES else []
    return ", ".join(names[:MOST_NAMES] + more)


def _short(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, dict):
        value = {key: part for key, part in value.items() if part not in (None, {})}
    text = str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
