"""Whether a config is the one that a study folder was made from."""

from typing import Any

import yaml
from pydantic import ValidationError

from search.config import ExperimentConfig
from search.errors import StudyError
from search.records import StudyFolder

# What may change between a search and what follows: how much, where and on what, not what.
FREE = {"output", "cache", "budget", "resources", "ensemble"}


def refuse_other(config: ExperimentConfig, folder: StudyFolder) -> None:
    """Refuse to mix two experiments in one study, and name what differs.

    Raises:
        StudyError: the study is another experiment's, or its config.yaml is damaged.
    """
    name = folder.head().name
    stored, given = _stored(folder).model_dump(), config.model_dump()
    differ = [key for key in given if key not in FREE and stored[key] != given[key]]
    if differ:
        key = differ[0]
        raise StudyError(
            f"{folder.path}: holds study {name!r} with another {key} "
            f"({_short(stored[key])}, now {_short(given[key])}); "
            "choose another output folder, or take the old one away"
        )


def _stored(folder: StudyFolder) -> ExperimentConfig:
    path = folder.path / "config.yaml"
    try:
        return ExperimentConfig.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise StudyError(f"{path}: missing or damaged; choose another output folder") from error


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
