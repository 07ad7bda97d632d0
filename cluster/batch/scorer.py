"""The actor: rows of a table in, their probabilities or errors out."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from PIL import Image

from cluster.batch.deaths import MOST
from cluster.batch.images import NAMELESS, Fault, Folders, ahead, decoded, read_images
from ensemble.bundle import Bundle, load_bundle
from ensemble.decision.points import Decision
from ensemble.golden import check_golden
from ensemble.runtime import Engine, Pixels, Prediction, Runtime, at_prevalence
from search.errors import BundleError, ClusterError, ConsiliumError

TOGETHER = 8  # images a call on a CPU: a quarter more of them a second than one by one
TOGETHER_ON_GPU = 64
DECODERS = 4  # threads that decode for one GPU

WHOLE = -1  # for a row: all of the shard
DEATHS = 2  # of a process with the same shard, or then with the same image
KILLER = "unscorable: the process that scores it dies"

SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("row", pa.int64()),  # within the shard
        ("probs", pa.list_(pa.float64())),
        ("decision", pa.string()),
        ("novel", pa.bool_()),
        ("error", pa.string()),
        ("stop", pa.string()),  # what no image is to blame for: the whole order ends with it
    ]
)


@dataclass(frozen=True)
class Task:
    """What is asked of every actor.

    Attributes:
        bundle: its folder.
        digest: of the bundle that is meant.
        roots: folders that names are relative to.
        deaths: the actor that counts what killed its scorer (see cluster.batch.deaths).
        files: a reference to the bundle's files by name, for nodes that do not see its folder.
        prevalence: class: share where the probabilities are to hold; the bundle's if empty.
    """

    bundle: str
    digest: str
    roots: tuple[str, ...]
    engine: Engine
    device: str
    operating_point: str | None
    prevalence: Mapping[str, float]
    deaths: Any
    files: Any = None


class Scored:
    """Of one image: all None but the error, or the other way round."""

    __slots__ = ("decision", "error", "novel", "probs")

    def __init__(
        self,
        probs: list[float] | None = None,
        decision: Decision | None = None,
        *,
        novel: bool | None = None,
        error: str | None = None,
    ) -> None:
        self.probs, self.decision, self.novel, self.error = probs, decision, novel, error


class Scorer:
    """One bundle on one CPU or a share of a GPU."""

    def __init__(self, task: Task) -> None:
        """Load the bundle and score its golden images; what fails is told by the first answer."""
        self._task = task
        self._stop: str | None = None
        try:
            self._folders = Folders(task.roots)
            self._runtime = _load(task)
        except ConsiliumError as error:
            self._stop = str(error)
            return
        self._point = self._runtime.bundle.operating_point(task.operating_point)
        on_gpu = task.device != "cpu"
        self._together = TOGETHER_ON_GPU if on_gpu else TOGETHER
        self._decoders = ThreadPoolExecutor(DECODERS) if on_gpu else None

    def __call__(self, block: Any) -> Any:
        """Score one shard's block of (shard, row, name)."""
        rows = block.to_pylist()
        if self._stop is None:
            try:
                return _answer(rows, self._score_shard(rows))
            except ConsiliumError as error:
                self._stop = str(error)
        first = {name: rows[0].get(name) for name in SCHEMA.names} | {"stop": self._stop}
        return pa.Table.from_pylist([first], schema=SCHEMA)

    def _score_shard(self, rows: Sequence[Mapping[str, Any]]) -> list[Scored]:
        """All at once; where that has killed a process before, image by image."""
        shard, deaths = rows[0]["shard"], self._task.deaths
        before, total = ray.get(deaths.begin.remote(shard, WHOLE))
        if total > MOST:
            raise ClusterError(
                f"{total} processes that scored have died; look whether memory runs out, try fewer "
                "--workers, and run the same command again, which goes on from here"
            )
        if before < DEATHS:
            scored = self._score([row["name"] for row in rows])
        else:
            scored = [self._score_carefully(shard, row["row"], row["name"]) for row in rows]
        ray.get(deaths.end.remote(shard, WHOLE))
        return scored

    def _score_carefully(self, shard: int, row: int, name: str | None) -> Scored:
        before, _ = ray.get(self._task.deaths.begin.remote(shard, row))
        scored = Scored(error=KILLER) if before >= DEATHS else self._score([name])[0]
        ray.get(self._task.deaths.end.remote(shard, row))
        return scored

    def _score(self, names: Sequence[str | None]) -> list[Scored]:
        found: list[Scored] = []
        prepared = self._prepared(names)
        while chunk := list(islice(prepared, self._together)):
            found += self._score_chunk(chunk)
        return found

    def _prepared(self, names: Sequence[str | None]) -> Iterator[list[Pixels] | Fault]:
        """Every member's pixels of each image; on a GPU, some threads make them ahead of it."""
        places = (None if name is None else self._folders.find(name) for name in names)
        files = (
            NAMELESS if name is None else file
            for name, file in zip(names, read_images(places), strict=True)
        )
        if self._decoders is None:
            return map(self._prepare, files)
        return ahead(self._decoders, self._prepare, files, depth=2 * self._together)

    def _prepare(self, file: bytes | Fault) -> list[Pixels] | Fault:
        image = decoded(file)
        return image if isinstance(image, Fault) else self._runtime.prepare(image)

    def _score_chunk(self, chunk: Sequence[list[Pixels] | Fault]) -> list[Scored]:
        good = [pixels for pixels in chunk if not isinstance(pixels, Fault)]
        said = iter(self._ask(good) if good else [])
        return [Scored(error=one.reason) if isinstance(one, Fault) else next(said) for one in chunk]

    def _ask(self, prepared: Sequence[list[Pixels]]) -> list[Scored]:
        try:
            prediction = self._runtime.pooled(self._runtime.score(prepared))
        except Exception as error:  # onnxruntime's and torch's own share no base class
            if len(prepared) > 1:
                return [scored for one in prepared for scored in self._ask([one])]
            self._check_works(error)
            return [Scored(error="unscorable: a member fails on this image")]
        return self._told(prediction)

    def _check_works(self, error: Exception) -> None:
        """Raise where a blank image fails as well: then no image of the table is to blame."""
        blank = self._runtime.prepare(Image.new("RGB", (64, 64)))
        try:
            self._runtime.pooled(self._runtime.score([blank]))
        except Exception:
            said = " ".join(str(error).split())[:200]
            raise BundleError(f"{self._task.bundle}: a member fails ({said})") from error

    def _told(self, prediction: Prediction) -> list[Scored]:
        bundle, probs = self._runtime.bundle, prediction.probs
        wanted = self._task.prevalence
        shown: NDArray[np.float64] = at_prevalence(bundle, probs, wanted) if wanted else probs
        novel = [None] * len(probs) if prediction.novel is None else prediction.novel.tolist()
        return [
            Scored(shown[i].tolist(), bundle.decide(probs[i], self._point), novel=novel[i])
            for i in range(len(probs))
        ]


def bundle_files(bundle: Bundle) -> dict[str, bytes]:
    """A bundle's files by relative name, to be taken to other nodes."""
    names = ["bundle.json", *bundle.manifest.files]
    return {name: (bundle.folder / name).read_bytes() for name in names}


def _load(task: Task) -> Runtime:
    folder = Path(task.bundle)
    if task.files is None or (folder / "bundle.json").is_file():
        return _open(folder, task)
    with tempfile.TemporaryDirectory(prefix="bundle") as name:
        for part, content in ray.get(task.files).items():
            path = Path(name) / part
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return _open(Path(name), task)  # all of it is in memory then


def _open(folder: Path, task: Task) -> Runtime:
    bundle = load_bundle(folder)
    if bundle.manifest.digest != task.digest:
        raise BundleError(f"{folder}: was changed meanwhile; run the command again")
    runtime = Runtime(bundle, engine=task.engine, device=task.device)
    check_golden(runtime, task.engine)
    return runtime


def _answer(rows: Sequence[Mapping[str, Any]], scored: Sequence[Scored]) -> Any:
    columns = {
        "shard": [row["shard"] for row in rows],
        "row": [row["row"] for row in rows],
        "probs": [one.probs for one in scored],
        "decision": [one.decision for one in scored],
        "novel": [one.novel for one in scored],
        "error": [one.error for one in scored],
        "stop": [None] * len(rows),
    }
    return pa.table(columns, schema=SCHEMA)
