"""A thousand trials on 64 slots of eight raylets, with trials that sleep."""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import optuna
import ray
from ray.cluster_utils import Cluster

from cluster.console import messages
from search.config import ExperimentConfig
from search.report.page import write_study_report
from search.study.clock import Clock
from search.study.course import Course
from search.study.kept import KeptStorage
from search.study.records import StudyFolder, StudyHead, TrialRecord
from search.study.resources import Slots
from search.study.samplers import build_sampler
from search.study.standing import Standing
from search.study.storage import open_storage, storage_url
from search.study.tuner import tune_trials
from search.tracking.trackers import open_tracker
from tests.benchmarks.accounts import idle_of, stints_of
from tests.benchmarks.command import leave_when_told
from tests.benchmarks.light import leave_out
from tests.benchmarks.stub import sleep_through

ROOT = Path(__file__).parents[2]
TRIAL = 60.0  # seconds of the trial that the overhead is put beside
OBJECT_STORE = 80 * 2**20  # bytes of each node; Ray takes no less
EARLY = 200  # trials after which the driver's memory is to stay flat


@dataclass(frozen=True)
class Size:
    """How large the simulation is; a trial has three epochs of `seconds`, fewer if stopped."""

    trials: int = 1000
    nodes: int = 8
    cpus: int = 8
    seconds: float = 6.0

    @property
    def slots(self) -> int:
        return self.nodes * self.cpus


@contextmanager
def local_cluster(size: Size) -> Iterator[None]:
    """A head without CPUs and nodes with some, all on this machine; nothing of it stays."""
    folder = tempfile.mkdtemp(prefix="s")  # short: Unix sockets bear 107 characters
    head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder}
    cluster = Cluster(
        initialize_head=True, head_node_args={**head, "object_store_memory": OBJECT_STORE}
    )
    try:
        for _ in range(size.nodes):
            cluster.add_node(num_cpus=size.cpus, object_store_memory=OBJECT_STORE)
        ray.init(
            address=cluster.address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={
                "env_vars": {"PYTHONPATH": str(ROOT)},
                "worker_process_setup_hook": leave_out,
            },
        )
        leave_when_told()  # Ray's own handler ends without cleaning up
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]
        shutil.rmtree(folder, ignore_errors=True)


class Gauge:
    """Watches the driver's memory as trials end."""

    def __init__(self) -> None:
        self.rss_mb: dict[int, float] = {}  # by trials that have ended

    def watch(self, standing: Standing, ended: TrialRecord | None) -> None:
        done = standing.done
        if ended is None or done in self.rss_mb:  # an end that does not count
            return
        self.rss_mb[done] = rss_mb()
        if done % 100 == 0:
            messages.print(f"{done}/{standing.target} trials, driver {self.rss_mb[done]:.0f} MB")


def rss_mb() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure_scale(experiment: ExperimentConfig, folder: Path, size: Size) -> dict[str, float]:
    """Search with trials that sleep, and tell what the driver costs."""
    config = experiment.model_copy(
        update={
            "output": folder,
            "budget": experiment.budget.model_copy(update={"minutes": None}),
            "fidelity": experiment.fidelity.model_copy(update={"max_epochs": 3, "grace": 1}),
        }
    )
    study_folder, gauge = StudyFolder(config.study_folder), Gauge()
    study_folder.create()
    study_folder.write_head(_head(config))
    study = _study(config, study_folder)
    with local_cluster(size), open_tracker(config, config.name) as tracker:
        clock = Clock(study_folder.path / "clock.json", config.budget)
        slots = Slots(config.resources)
        course = Course(
            config, study_folder, study, clock, slots, tracker=tracker, watch=gauge.watch
        )
        course.begin("trials", done=0, target=size.trials)
        begin, cpu = time.time(), time.process_time()
        tune_trials(config, study, course, train=partial(sleep_through, seconds=size.seconds))
        end, cpu = time.time(), time.process_time() - cpu
    found = _overhead(study_folder, size, begin, end) | _memory(gauge, size)
    found["driver_cpu_ms_per_trial"] = 1000 * cpu / size.trials
    return found | _reading(study_folder, study)


def _overhead(folder: StudyFolder, size: Size, begin: float, end: float) -> dict[str, float]:
    """What slots wait for their next trial, while all of them are up and trials are left."""
    stints, _ = stints_of(folder)
    idle = idle_of(stints, size.slots, begin, end)
    workers = len({s.worker for s in stints})
    per_trial = idle.between / max(1, len(stints) - workers)
    return {
        "scale_overhead": per_trial / TRIAL,
        "scale_idle_s_per_trial": per_trial,
        "scale_trials": len(stints),
        "scale_workers": workers,
        "scale_seconds": end - begin,
        "scale_start_s": idle.before / size.slots,
    }


def _memory(gauge: Gauge, size: Size) -> dict[str, float]:
    early = min(EARLY, size.trials // 2)
    return {f"driver_rss_mb_{n}": gauge.rss_mb[n] for n in (early, size.trials)}


def _reading(folder: StudyFolder, study: optuna.Study) -> dict[str, float]:
    """How long records and page take at this size."""
    begin = time.perf_counter()
    folder.records()
    middle = time.perf_counter()
    page = Path(str(folder.path)) / "report.html"
    write_study_report(page, folder, study)
    return {
        "records_s": middle - begin,
        "report_s": time.perf_counter() - middle,
        "report_mb": page.stat().st_size / 1e6,
    }


def _study(config: ExperimentConfig, folder: StudyFolder) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=KeptStorage(open_storage(storage_url(folder, None))),
        study_name=config.name,
        direction="minimize",
        sampler=build_sampler(config.sampler, config.space, seed=config.seed),
    )


def _head(config: ExperimentConfig) -> StudyHead:
    return StudyHead(
        name=config.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        classes=["melanoma", "other"],
        positive="melanoma",
        objective="nll",
        objectives=["nll"],
        seed=config.seed,
        data_digest="none",
        splits_hash="none",
        n_images={},
        versions={},
    )


def show_scale(found: dict[str, float], size: Size) -> None:
    """The figures and how they came about."""
    idle = found["scale_idle_s_per_trial"]
    memory = [f"{v:.0f} MB after {k[14:]}" for k, v in found.items() if k.startswith("driver_rss")]
    messages.print(
        f"{size.trials} trials on {size.slots} slots of {size.nodes} raylets took "
        f"{found['scale_seconds']:.0f} s, of which {found['scale_start_s']:.0f} s until all "
        f"slots were up. A trial sleeps {size.seconds:g} s an epoch, for three epochs unless ASHA "
        "stops it, and imports no torch. From when every slot has had a trial until the last one "
        f"starts, a slot waits {idle:.2f} s for each next trial: asking, sampling, starting, "
        f"settling, and the queue at a driver that is far busier than with 60-second trials. "
        f"Beside {TRIAL:g} s that is {found['scale_overhead']:.1%}. The driver computes "
        f"{found['driver_cpu_ms_per_trial']:.0f} ms a trial; its memory is {', '.join(memory)}. "
        f"Reading the records takes {found['records_s']:.1f} s, the page {found['report_s']:.1f} s "
        f"({found['report_mb']:.1f} MB)."
    )
