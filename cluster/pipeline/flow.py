"""The pipeline from beginning to end: steps in order, each skipped where nothing has changed."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from cluster.pipeline.deploying import Canary, Gate, tidy
from cluster.pipeline.making import Ensemble, Evaluate, Search
from cluster.pipeline.service import open_service
from cluster.pipeline.state import (
    Inputs,
    PipelineState,
    StepState,
    one_pipeline,
    read_state,
    same,
    write_state,
)
from cluster.pipeline.work import Name, Result, Step, Work
from search.errors import ConsiliumError, GateError

NAMES: tuple[Name, ...] = ("search", "ensemble", "evaluate", "gate", "canary")
ASKS = ("gate", "canary")  # the steps that ask the service


@dataclass(frozen=True)
class Row:
    """One step, as people see it."""

    step: Name
    status: Literal["done", "skipped", "failed"]
    why: str
    seconds: float = 0.0
    outcome: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What a pipeline came to.

    Attributes:
        error: why it stopped; None where it came to its end.
    """

    rows: list[Row]
    error: Exception | None = None


def run_pipeline(work: Work, *, until: Name = "canary") -> Report:
    """Take the steps up to `until`; what is done is kept in <output>/pipeline.json.

    Raises:
        StudyError: another pipeline works on this experiment, or its pipeline.json is damaged.
        ServingError: the service cannot be reached, or asks for another key.
    """
    output, rows = work.settings.output, list[Row]()
    steps: list[Step] = [kind(work) for kind in (Search, Ensemble, Evaluate, Gate, Canary)]
    wanted = steps[: NAMES.index(until) + 1]
    with one_pipeline(output):
        state = read_state(output)
        asks = any(step.name in ASKS for step in wanted)
        service = work.config if asks else work.config.model_copy(update={"service": None})
        with open_service(service) as work.admin:
            for step in wanted:
                try:
                    if step.name == "gate":
                        tidy(work)
                    row, state = _take(step, work, state)
                except (ConsiliumError, OSError) as error:
                    rows.append(Row(step.name, "failed", str(error)))
                    return Report(rows, error)
                rows.append(row)
                if row.status == "failed":
                    return Report(rows, GateError(f"{step.name}: {row.why}"))
    return Report(rows)


def _take(step: Step, work: Work, state: PipelineState) -> tuple[Row, PipelineState]:
    """Skip a step, or do it and write down what came of it."""
    if (why := step.needless()) is not None:
        return Row(step.name, "skipped", why), state
    inputs, known = step.inputs(), state.steps.get(step.name)
    alike = known is not None and same(inputs, known.inputs)
    if known is not None and alike:
        if known.status == "done" and step.stands(known.outcome):
            return Row(step.name, "skipped", "nothing has changed", 0, known.outcome), state
        if known.status == "failed":
            why = f"{known.why}; it came to this before, and nothing has changed"
            return Row(step.name, "failed", why, 0, known.outcome), state
    work.say(f"{step.name}: {_reason(inputs, known, alike=alike)}")
    begun = known.begun if known is not None and alike and known.status == "running" else _now()
    running = StepState(inputs=inputs, status="running", begun=begun)
    state = _kept(work, state, step, running)
    clock = time.monotonic()
    try:
        result = step.work(datetime.fromisoformat(begun))
    except GateError as error:
        result = Result(str(error), ok=False)
    seconds = round(time.monotonic() - clock, 1)
    status: Literal["done", "failed"] = "done" if result.ok else "failed"
    # What may be tried again is not held against the next time.
    ended = running.model_copy(
        update={
            "status": "running" if not result.ok and not result.final else status,
            "begun": begun if result.ok or result.final else _now(),
            "seconds": seconds,
            "why": result.why,
            "outcome": result.outcome,
        }
    )
    state = _kept(work, state, step, ended)
    return Row(step.name, status, result.why, seconds, result.outcome), state


def _kept(work: Work, state: PipelineState, step: Step, now: StepState) -> PipelineState:
    state = state.having(step.name, now)
    write_state(work.settings.output, state)
    return state


def _reason(inputs: Inputs, known: StepState | None, *, alike: bool) -> str:
    """Why a step is taken."""
    if known is None:
        return "begins"
    if not alike:
        return f"again, for it changed: {', '.join(_changed(inputs, known.inputs))}"
    return "goes on" if known.status == "running" else "again, for its product is gone"


def _changed(inputs: Inputs, known: Inputs) -> Sequence[str]:
    names = dict.fromkeys((*inputs, *known))
    return [name for name in names if not same({"": inputs.get(name)}, {"": known.get(name)})]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
