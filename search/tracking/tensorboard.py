"""TensorBoard's event files of a study, a folder a trial."""

import itertools
import os
import socket
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import hparams, scalar, text

from search.space import flatten
from search.study.records import TrialRecord
from search.study.trial import Trial


class TensorBoard:
    """The folder that `tensorboard --logdir` is given; what is in it already stays."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._count = folder, itertools.count()

    def begin(self, name: str, trial: Trial) -> "EventFile":
        folder = self._folder / name
        again = folder.is_dir()
        folder.mkdir(exist_ok=True)
        stem = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        path = folder / f"{stem}.{os.getpid()}.{next(self._count)}"
        return EventFile(path, trial, supersedes=again)

    def close(self) -> None:
        """Nothing stays open."""


class EventFile:
    """One trial's event file, appended to and closed at each epoch.

    tensorboardX's own SummaryWriter has a thread and a short queue a trial: where the disk is full
    the thread dies, and whoever adds the next numbers waits for ever.
    """

    def __init__(self, path: Path, trial: Trial, *, supersedes: bool) -> None:
        """Begin with the params; with `supersedes`, the folder's other files are passed over."""
        self.epochs = 0
        self._path = path
        experiment, start, self._end = hparams(flatten(trial.params), {"best_value": None})
        events = [_event(file_version="brain.Event:2")]
        if supersedes:
            events.append(_event(step=1, session_log=SessionLog(status=SessionLog.START)))
        self._append([*events, _event(summary=experiment), _event(summary=start)])

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        self._append(_event(number, summary=scalar(k, v)) for k, v in values.items())
        self.epochs = number

    def end(self, record: TrialRecord) -> None:
        note = [record.recipe or record.params.backbone, record.status, record.error or ""]
        events = [_event(summary=text("trial", ", ".join(filter(None, note))))]
        if record.value is not None:
            best = scalar("best_value", record.value)
            events.append(_event(record.best_epoch or 0, summary=best))
        self._append([*events, _event(summary=self._end)])

    def close(self) -> None:
        """Nothing stays open."""

    def _append(self, events: Iterable[Any]) -> None:
        with self._path.open("ab") as file:
            file.write(b"".join(_framed(event.SerializeToString()) for event in events))


def _event(step: int = 0, **what: Any) -> Any:
    return Event(wall_time=time.time(), step=step, **what)


def _framed(content: bytes) -> bytes:
    """A TFRecord: length, its checksum, content, its checksum; little-endian.

    Source: https://www.tensorflow.org/tutorials/load_data/tfrecord
    """
    length = struct.pack("<Q", len(content))
    checks = (struct.pack("<I", masked_crc32c(part)) for part in (length, content))
    return length + next(checks) + content + next(checks)
