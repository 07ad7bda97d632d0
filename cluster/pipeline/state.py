"""What each step was made from and what came of it: <output>/pipeline.json."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from search.atomic import finite, write_text
from search.errors import StudyError
from search.params import Config

SCHEMA_VERSION = 1
FILE = "pipeline.json"
Inputs = dict[str, Any]  # digests and settings, by what they are of
Outcome = dict[str, Any]


class StepState(Config):
    """One step, as it went last.

    Attributes:
        status: running: it was begun, and has not been heard of since.
    """

    inputs: Inputs
    status: Literal["running", "done", "failed"]
    begun: str = Field(description="UTC, ISO 8601")
    seconds: float = 0
    why: str = ""
    outcome: Outcome = Field(default={})


class PipelineState(Config):
    """pipeline.json."""

    schema_version: int = SCHEMA_VERSION
    steps: dict[str, StepState] = Field(default={})

    def having(self, name: str, step: StepState) -> "PipelineState":
        """The same with one step as it is now."""
        return self.model_copy(update={"steps": {**self.steps, name: step}})


def read_state(output: Path) -> PipelineState:
    """What is known; nothing where no pipeline ran yet.

    Raises:
        StudyError: the file is damaged, or from a newer version.
    """
    path = output / FILE
    try:
        document = json.loads(path.read_bytes())
        version = int(document["schema_version"])
    except FileNotFoundError:
        return PipelineState()
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path) from error
    if version > SCHEMA_VERSION:
        raise StudyError(f"{path}: schema {version} is newer than known here; update consilium")
    try:
        return PipelineState.model_validate(document)
    except ValidationError as error:
        raise _damaged(path) from error


def write_state(output: Path, state: PipelineState) -> None:
    """Write pipeline.json, whole."""
    document = finite(state.model_dump(mode="json"))
    write_text(output / FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")


def same(inputs: Mapping[str, Any], known: Mapping[str, Any]) -> bool:
    """Whether inputs are those that were written down."""
    return bool(json.loads(json.dumps(finite(inputs))) == known)


@contextmanager
def one_pipeline(output: Path) -> Iterator[None]:
    """Hold an output folder; the system lets go of it when the process ends.

    Raises:
        StudyError: another pipeline works on it.
    """
    output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output / ".pipeline.lock", timeout=0):
            yield
    except Timeout as error:
        raise StudyError(
            f"{output}: another pipeline works on this experiment; wait for it or stop it"
        ) from error


def _damaged(path: Path) -> StudyError:
    return StudyError(
        f"{path}: damaged; take it away, and what is there already is found or made again"
    )
