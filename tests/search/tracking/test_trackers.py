"""A study's numbers in TensorBoard files and on an MLflow server."""

import builtins
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.record_writer import masked_crc32c

from search.config import ExperimentConfig
from search.errors import ConfigError, StudyError
from search.params import Augmentation, Params
from search.study.records import Status, TrialRecord
from search.study.trial import Trial
from search.tracking.trackers import BACKLOG, Distant, Trackers, open_tracker

PARAMS = Params(backbone="cnn", lr=0.01, augment=Augmentation(rotation=20))
FIRST, SECOND = {"nll": 0.7, "auroc": 0.6}, {"nll": 0.5, "auroc": 0.8}
TRIAL = Trial(7, PARAMS, recipe="custom_cnn")


def config(folder: Path, mlflow: str | None = None) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "name": "tiny",
            "output": folder,
            "dataset": {"sources": [{"folder": folder}]},
            "space": {},
            "tracking": {"mlflow": mlflow},
        }
    )


def record(status: Status = "complete", **changes: Any) -> TrialRecord:
    whole: dict[str, Any] = {
        "number": 7,
        "status": status,
        "recipe": "custom_cnn",
        "params": PARAMS,
        "fold": 0,
        "value": 0.5,
        "best_epoch": 2,
        "epochs": [FIRST, SECOND],
    }
    return TrialRecord(**{**whole, **changes})


def events(path: Path) -> Iterator[Event]:
    """Those of one event file: records of length, its checksum, content, its checksum."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        assert content[8:12] == struct.pack("<I", masked_crc32c(content[:8]))
        content = content[16 + length :]


def files(folder: Path, name: str) -> list[Path]:
    return sorted((folder / "tensorboard" / name).iterdir())


def scalars(path: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): round(value.simple_value, 6)
        for event in events(path)
        for value in event.summary.value
        if value.HasField("simple_value")
    }


def plugin_data(path: Path, tag: str) -> HParamsPluginData:
    (value,) = (v for e in events(path) for v in e.summary.value if v.tag == tag)
    return HParamsPluginData.FromString(value.metadata.plugin_data.content)


WHOLE = {
    ("nll", 1): 0.7,
    ("auroc", 1): 0.6,
    ("nll", 2): 0.5,
    ("auroc", 2): 0.8,
    ("best_value", 2): 0.5,
}


def test_a_trials_epochs_and_its_best_value_are_in_its_event_file(tmp_path: Path) -> None:
    with open_tracker(config(tmp_path), "tiny") as tracker:
        tracker.epoch(TRIAL, 1, FIRST)
        tracker.epoch(TRIAL, 2, SECOND)
        tracker.end(record())
    (path,) = files(tmp_path, "00007")
    assert scalars(path) == WHOLE


def test_epochs_that_were_not_heard_of_are_taken_from_the_record(tmp_path: Path) -> None:
    with open_tracker(config(tmp_path), "tiny") as tracker:
        tracker.epoch(TRIAL, 1, FIRST)
        tracker.end(record())
        tracker.end(record(number=8))
    assert [scalars(files(tmp_path, name)[0]) for name in ("00007", "00008")] == [WHOLE, WHOLE]


def test_params_stand_with_their_types_under_hparams(tmp_path: Path) -> None:
    with open_tracker(config(tmp_path), "tiny") as tracker:
        tracker.end(record())
    (path,) = files(tmp_path, "00007")
    start = plugin_data(path, "_hparams_/session_start_info").session_start_info.hparams
    assert start["backbone"].string_value == "cnn"
    assert start["lr"].number_value == 0.01
    assert start["augment.rotation"].number_value == 20
    assert start["grayscale"].bool_value is False
    (metric,) = plugin_data(path, "_hparams_/experiment").experiment.metric_infos
    assert metric.name.tag == "best_value"


def test_a_failed_trial_says_why_in_its_event_file(tmp_path: Path) -> None:
    with open_tracker(config(tmp_path), "tiny") as tracker:
        tracker.end(record("failed", value=None, best_epoch=None, epochs=[], error="loss is NaN"))
    (path,) = files(tmp_path, "00007")
    said = [v.tensor.string_val for e in events(path) for v in e.summary.value if "text" in v.tag]
    assert [bytes(text) for (text,) in said] == [b"custom_cnn, failed, loss is NaN"]


def test_an_epoch_is_on_disk_before_the_trial_ends(tmp_path: Path) -> None:
    with open_tracker(config(tmp_path), "tiny") as tracker:
        tracker.epoch(TRIAL, 1, FIRST)
        (path,) = files(tmp_path, "00007")
        assert scalars(path) == {("nll", 1): 0.7, ("auroc", 1): 0.6}


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    with open_tracker(config(tmp_path), "tiny") as tracker:
        tracker.epoch(TRIAL, 1, {"nll": math.nan, "ece": math.inf, "auroc": None, "lr": 0.1})
    assert scalars(files(tmp_path, "00007")[0]) == {("lr", 1): 0.1}


def test_a_finalists_folds_have_folders_of_their_own(tmp_path: Path) -> None:
    with open_tracker(config(tmp_path), "tiny") as tracker:
        tracker.epoch(Trial(7, PARAMS, fold=1), 1, FIRST)
        tracker.end(record())
        tracker.end(record(fold=1))
    assert sorted(path.name for path in (tmp_path / "tensorboard").iterdir()) == [
        "00007",
        "00007_fold_1",
    ]
    assert scalars(files(tmp_path, "00007_fold_1")[0]) == WHOLE


def test_a_restart_leaves_earlier_files_as_they_are(tmp_path: Path) -> None:
    with open_tracker(config(tmp_path), "tiny") as tracker:
        tracker.end(record())
        tracker.epoch(Trial(7, PARAMS, fold=1), 1, {"nll": 0.9})
    before = {path: path.read_bytes() for path in (tmp_path / "tensorboard").glob("*/*")}
    with open_tracker(config(tmp_path), "tiny") as tracker:
        tracker.end(record(fold=1))
    assert {path: path.read_bytes() for path in before} == before
    assert len(files(tmp_path, "00007")) == 1
    old, new = sorted(files(tmp_path, "00007_fold_1"), key=lambda path: path not in before)
    assert (scalars(old), scalars(new)) == ({("nll", 1): 0.9}, WHOLE)
    assert [e.session_log.status for e in events(new) if e.HasField("session_log")] == [
        SessionLog.START
    ]


class Fake:
    """A tracker that hears, and fails from a given call on."""

    def __init__(self, fails_from: int = 1000) -> None:
        self.heard: list[str] = []
        self.fails_from = fails_from

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if len(self.heard) >= self.fails_from:
            try:
                raise ConnectionRefusedError(111, "Connection refused")
            except OSError as error:
                raise RuntimeError("a long story\nof many lines") from error

    def epoch(self, trial: Trial, number: int, metrics: Mapping[str, float | None]) -> None:
        self._hear(f"epoch {number} of {trial.number}, nll {metrics['nll']}")

    def end(self, record: TrialRecord) -> None:
        self._hear(f"end of {record.number}")

    def close(self) -> None:
        self._hear("close")


def test_a_tracker_that_fails_is_named_once_and_left_out() -> None:
    good, bad, warnings = Fake(), Fake(fails_from=2), list[str]()
    with Trackers({"MLflow": bad, "TensorBoard": good}, warnings.append) as tracker:
        tracker.epoch(TRIAL, 1, FIRST)
        tracker.epoch(TRIAL, 2, SECOND)
        tracker.end(record())
    epochs = ["epoch 1 of 7, nll 0.7", "epoch 2 of 7, nll 0.5"]
    assert good.heard == [*epochs, "end of 7", "close"]
    assert bad.heard == [*epochs, "close"]
    assert warnings == ["MLflow: Connection refused; it hears of no more trials, the study goes on"]


def test_a_folder_that_cannot_be_written_warns_and_loses_no_trial(tmp_path: Path) -> None:
    warnings: list[str] = []
    with open_tracker(config(tmp_path), "tiny", warn=warnings.append) as tracker:
        (tmp_path / "tensorboard" / "00007").write_text("in the way")
        tracker.epoch(TRIAL, 1, FIRST)
        tracker.end(record())
    assert warnings == ["TensorBoard: File exists; it hears of no more trials, the study goes on"]


def test_a_full_disk_warns_once_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("a full disk is /dev/full")
    real, warnings = Path.open, list[str]()

    def full(path: Path, *rest: Any, **options: Any) -> Any:
        return real(Path("/dev/full"), *rest, **options)

    with open_tracker(config(tmp_path), "tiny", warn=warnings.append) as tracker:
        monkeypatch.setattr(Path, "open", full)
        for number in range(20):
            tracker.epoch(TRIAL, number + 1, FIRST)
    assert warnings == [
        "TensorBoard: No space left on device; it hears of no more trials, the study goes on"
    ]


class Slow(Fake):
    """A tracker that goes on when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def _hear(self, what: str) -> None:
        assert self.go.wait(60)
        super()._hear(what)


def test_a_slow_server_holds_nobody_up_and_gets_every_end_in_order() -> None:
    slow = Slow()
    tracker = Distant(slow)
    for number in range(1, 1001):
        tracker.epoch(TRIAL, number, FIRST)
    tracker.end(record())
    assert slow.heard == []
    slow.go.set()
    tracker.close()
    assert slow.heard[:2] == ["epoch 1 of 7, nll 0.7", "epoch 2 of 7, nll 0.7"]
    assert slow.heard[-2:] == ["end of 7", "close"]
    assert len(slow.heard) <= BACKLOG + 3


def test_a_server_that_fails_in_the_background_is_named_once() -> None:
    bad, warnings = Fake(fails_from=2), list[str]()
    with Trackers({"MLflow": Distant(bad)}, warnings.append) as tracker:
        for number in range(1, 4):
            tracker.epoch(TRIAL, number, FIRST)
    assert bad.heard == ["epoch 1 of 7, nll 0.7", "epoch 2 of 7, nll 0.7"]
    assert warnings == ["MLflow: Connection refused; it hears of no more trials, the study goes on"]


@pytest.fixture
def no_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **options: Any) -> ModuleType:
        if name.startswith("mlflow"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.usefixtures("no_mlflow")
def test_mlflow_that_is_not_installed_names_the_extra(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"tracking.mlflow needs the mlflow extra: pip install 'consilium\["
    ):
        open_tracker(config(tmp_path, "http://127.0.0.1:9"), "tiny")


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_an_unreachable_mlflow_server_is_named_within_seconds(tmp_path: Path, scheme: str) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip({"http": "mlflow", "postgresql": "psycopg"}[scheme])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but nobody listens
        uri = f"{scheme}://me:secret@127.0.0.1:{free.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(
            StudyError,
            match=rf"^tracking.mlflow: {scheme}://127.+ \(.*onnection refused\); start the",
        ) as caught:
            open_tracker(config(tmp_path, uri), "tiny")
        assert time.monotonic() - start < 20
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A client of the SQLite file that the tests below track to."""
    tracking = pytest.importorskip("mlflow.tracking")
    folder = tmp_path_factory.mktemp("mlflow")
    return tracking.MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def its_runs(server: Any, study_name: str) -> dict[str, Any]:
    experiment = server.get_experiment_by_name(study_name).experiment_id
    return {run.info.run_name: run for run in server.search_runs([experiment])}


def wait_for(met: Callable[[], bool]) -> None:
    """Until what a thread does is done."""
    end = time.monotonic() + 60
    while not met():
        assert time.monotonic() < end
        time.sleep(0.02)


with_mlflow = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


@with_mlflow
def test_mlflow_gets_params_epochs_and_the_end_of_every_trial(tmp_path: Path, server: Any) -> None:
    with open_tracker(config(tmp_path, server.tracking_uri), "ends") as tracker:
        tracker.epoch(TRIAL, 1, FIRST | {"ece": math.nan})
        tracker.end(record())
        tracker.end(record("pruned", number=8, recipe=None))
        tracker.end(record("failed", number=9, value=None, error="loss is NaN"))
        tracker.end(record(fold=1))
    runs = its_runs(server, "ends")
    assert {name: run.info.status for name, run in runs.items()} == {
        "00007": "FINISHED",
        "00008": "KILLED",
        "00009": "FAILED",
        "00007_fold_1": "FINISHED",
    }
    run = runs["00007"]
    assert run.data.params["lr"] == "0.01"
    assert run.data.params["augment.rotation"] == "20.0"
    assert run.data.metrics == {**SECOND, "epoch": 2, "best_value": 0.5}
    history = server.get_metric_history(run.info.run_id, "nll")
    assert [(point.step, point.value) for point in history] == [(1, 0.7), (2, 0.5)]
    tags = {name: run.data.tags for name, run in runs.items()}
    assert (tags["00007"]["recipe"], tags["00007"]["status"]) == ("custom_cnn", "complete")
    assert ("recipe" in tags["00008"], tags["00008"]["status"]) == (False, "pruned")
    assert (tags["00009"]["error"], tags["00009"]["status"]) == ("loss is NaN", "failed")


@with_mlflow
def test_a_restart_goes_on_with_what_it_left_on_the_server(tmp_path: Path, server: Any) -> None:
    here, elsewhere = config(tmp_path, server.tracking_uri), tmp_path / "elsewhere"
    other = open_tracker(config(elsewhere, server.tracking_uri), "goes_on")
    other.epoch(Trial(9, PARAMS), 1, FIRST)
    killed = open_tracker(here, "goes_on")
    killed.epoch(TRIAL, 1, FIRST)
    wait_for(lambda: len(its_runs(server, "goes_on")) == 2)
    wait_for(lambda: "epoch" in its_runs(server, "goes_on")["00007"].data.metrics)
    assert its_runs(server, "goes_on")["00007"].info.status == "RUNNING"
    with open_tracker(here, "goes_on") as tracker:
        tracker.end(record())
    killed.close()
    runs = its_runs(server, "goes_on")
    assert len(runs) == 2
    assert runs["00009"].info.status == "RUNNING"
    assert server.get_run(runs["00007"].info.run_id).data.metrics["best_value"] == 0.5
    assert len(server.get_metric_history(runs["00007"].info.run_id, "nll")) == 2
    other.close()
    assert its_runs(server, "goes_on")["00009"].info.status == "KILLED"
