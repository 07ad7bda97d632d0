"""A thousand GPUs' worth of trials against a stub, in virtual time: what one driver bears.

The driver's own parts are the real ones: sampler, ASHA, course, settlement, TensorBoard, a study in
PostgreSQL. Not there are Ray, the network, the object store and the training; thousand_figures.py
names what stands for them. Alone: python -m tests.benchmarks.cluster.thousand [TRIALS [SLOTS]].
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean
from typing import Any
from unittest.mock import patch

import optuna
import pytest
from optuna.storages import RDBStorage

from cluster.console import messages
from search.config import ExperimentConfig, load_config
from search.study.records import StudyFolder
from search.study.storage import opened_storage, storage_url
from search.tracking.trackers import open_tracker
from tests.benchmarks.cluster.thousand_driver import COLD, WINDOW, Call, Moment, RealDriver
from tests.benchmarks.cluster.thousand_figures import (
    KINDS,
    Costs,
    ModelDriver,
    fit_costs,
    most_slots,
    rate_asked,
)
from tests.benchmarks.cluster.thousand_loop import play
from tests.benchmarks.cluster.thousand_stub import EPOCH_S
from tests.experiments import write_experiment
from tests.servers import PASSWORD, postgres

SPACE: dict[str, Any] = {
    "backbone": {"choice": ["mobilenetv2_035", "mobilenetv2_100", "resnet18", "resnet50"]},
    "weights": "none",
    "image_size": {"choice": [128, 160, 192, 224]},
    "loss": {"choice": ["cross_entropy", "focal"]},
    "lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "weight_decay": {"low": 1e-4, "high": 1e-1, "log": True},
    "dropout": {"low": 0.0, "high": 0.5},
    "augment.flip_horizontal": 0.5,
    "augment.rotation": {"low": 0, "high": 180},
    "augment.zoom": {"low": 0.0, "high": 0.3},
    "augment.brightness": {"low": 0.0, "high": 0.3},
    "augment.contrast": {"low": 0.0, "high": 0.3},
    "augment.saturation": {"low": 0.0, "high": 0.3},
}
ENDED = (1000, 2500)  # ended trials at which the driver is looked at, besides the last ones
NAMES = {False: "", True: "_optuna"}


def measure_thousand(folder: Path, *, trials: int = 5000, slots: int = 1000) -> dict[str, float]:
    """Search in virtual time, and tell what the driver costs and how many GPUs it can feed.

    Figures ending in `_optuna` are of Optuna's own storage, which reads running trials back each
    time; the others of the search's, which keeps them (search/study/kept.py).

    Returns:
        Of the nth look: look_n_running and _ended trials, _suggest_ms, _report_ms, _end_ms (CPU of
        the driver and of the database's process), _suggest_statements, _rss_mb; "first" are
        suggestions before TPE begins. epochs: of a trial. trials_s_asked, reports_s_asked: by so
        many GPUs, a second. trials_s: the most that one driver does.
        driver_share: of one core, 1 is all of it. most_gpus: where that is reached. fill_minutes:
        until every GPU has a trial. idle_share: of the GPUs' time, waiting for the driver.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = _config(folder)
    with ExitStack() as stack:
        backend = stack.enter_context(_backend(config))
        tracker = stack.enter_context(open_tracker(config, config.name))
        moments = _moments(trials, slots)
        driver = RealDriver(config, backend, tracker, slots=slots, trials=trials, moments=moments)
        play(_arrivals(slots), driver)
        figures = {"postgres": float(backend.engine.dialect.name == "postgresql")}
    return figures | _measured(driver) | _borne(driver, trials, slots)


def _config(folder: Path) -> ExperimentConfig:
    fidelity = {"max_epochs": 9, "grace": 1, "reduction": 3}
    file = write_experiment(folder, space=SPACE, objective="nll", fidelity=fidelity)
    return load_config(file)


@contextmanager
def _backend(config: ExperimentConfig) -> Iterator[RDBStorage]:
    """On a new PostgreSQL server; in SQLite where none is installed."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(postgres())
        except pytest.skip.Exception:
            messages.print("PostgreSQL is not installed: SQLite")
            url = None
        stack.enter_context(patch.dict(os.environ, {"PGPASSWORD": PASSWORD}))
        where = storage_url(StudyFolder(config.study_folder), url)
        StudyFolder(config.study_folder).create()
        yield stack.enter_context(opened_storage(where))


def _moments(trials: int, slots: int) -> list[Moment]:
    """When to look: as the slots come in three lots, and then with all of them taken."""
    found = [Moment(0, 0), Moment(slots // 8, 0)]  # TPE has not begun: "first" ones
    found += [Moment(slots // 5, COLD), Moment(slots // 5 * 2, COLD)]
    last = max(COLD, trials - 4 * WINDOW)
    full = sorted({*(ended for ended in ENDED if ended < last), last})
    return found + [Moment(slots // 10 * 9, ended) for ended in full]


def _arrivals(slots: int) -> list[float]:
    """A quarter of the slots is there from the beginning, another and the last half come later."""
    first, second = slots // 4, slots // 2
    return [0.0] * first + [4 * EPOCH_S] * (second - first) + [8 * EPOCH_S] * (slots - second)


def _measured(driver: RealDriver) -> dict[str, float]:
    """The means of each window, by how many trials had ended when it began."""
    found: dict[str, float] = {}
    for number, calls in enumerate(driver.looks):
        about = {"running": calls[0].running, "ended": calls[0].ended}
        found |= {f"look_{number}_{name}": figure for name, figure in about.items()}
        found[f"look_{number}_rss_mb"] = driver.rss_mb[number]
        for kind in KINDS:
            for optunas, suffix in NAMES.items():
                some = [c for c in calls if (c.kind, c.optunas) == (kind, optunas)]
                found |= _means(some, f"look_{number}_{kind}_", suffix) if some else {}
    return found


def _means(calls: Sequence[Call], prefix: str, suffix: str) -> dict[str, float]:
    return {
        f"{prefix}ms{suffix}": 1000 * mean(c.seconds for c in calls),
        f"{prefix}wall_ms{suffix}": 1000 * mean(c.wall for c in calls),
        f"{prefix}server_ms{suffix}": 1000 * mean(c.server for c in calls),
        f"{prefix}statements{suffix}": mean(c.statements for c in calls),
    }


def _borne(driver: RealDriver, trials: int, slots: int) -> dict[str, float]:
    """What so many GPUs ask for, and what the driver can do."""
    epochs = mean(driver.epochs)
    rate = rate_asked(slots, epochs)
    found = {"epochs": epochs, "trials_s_asked": rate, "reports_s_asked": rate * epochs}
    for optunas, suffix in NAMES.items():
        own = fit_costs(driver.calls, optunas=optunas, around=False)
        costs = fit_costs(driver.calls, optunas=optunas)
        each = costs.each_trial(slots, trials // 2, epochs)
        outcome = play([0.0] * slots, ModelDriver(costs, driver.epochs, trials=trials))
        found |= {
            f"own_s_per_trial{suffix}": own.each_trial(slots, trials // 2, epochs),
            f"driver_s_per_trial{suffix}": each,
            f"trials_s{suffix}": 1 / each,
            f"reports_s{suffix}": 1 / costs.seconds("report", slots, trials // 2),
            f"driver_share{suffix}": rate * each,
            f"most_gpus{suffix}": most_slots(costs, trials // 2, epochs),
            f"fill_minutes{suffix}": outcome.filled / 60,
            f"search_minutes{suffix}": outcome.seconds / 60,
            f"idle_share{suffix}": outcome.waited / (slots * outcome.seconds),
        } | _by_load(costs, suffix)
    return found


def _by_load(costs: Costs, suffix: str) -> dict[str, float]:
    """The fitted costs: milliseconds at rest, for 1,000 running and for 1,000 ended trials."""
    return {
        f"{kind}_{name}{suffix}": float(1000 * share * factor)
        for kind, shares in costs.of.items()
        for name, share, factor in zip(
            ("rest_ms", "running_ms", "ended_ms"), shares, (1, 1000, 1000), strict=True
        )
    }


if __name__ == "__main__":
    sizes = [int(word) for word in sys.argv[1:]]
    with tempfile.TemporaryDirectory(prefix="consilium-thousand-") as scratch:
        figures = measure_thousand(
            Path(scratch), **dict(zip(("trials", "slots"), sizes, strict=False))
        )
    print(json.dumps({name: round(figure, 4) for name, figure in figures.items()}))  # noqa: T201
