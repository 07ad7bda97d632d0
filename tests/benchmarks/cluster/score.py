"""`consilium score` against the limit: decode and members in one process, two threads, no Ray."""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks.serve.limit import Limit
from tests.benchmarks.serve.processes import memory_of, running, tail

EVERY_S = 1.0
COMMAND = "from cluster.cli import main; main()"


@dataclass
class Course:
    """What is seen of a scoring from outside, once a second.

    Attributes:
        memory: (seconds, MB) of all its processes; pages that several share count for each.
        parts: (seconds, finished shards).
    """

    memory: list[tuple[float, float]] = field(default_factory=list)
    parts: list[tuple[float, int]] = field(default_factory=list)

    def shards_s(self) -> float | None:
        """Finished shards a second between the first and the last that was seen."""
        seen = [(when, count) for when, count in self.parts if count]
        if len(seen) < 2 or seen[-1][1] == seen[0][1]:
            return None
        first = seen[0]
        last = next(each for each in seen if each[1] == seen[-1][1])
        return (last[1] - first[1]) / (last[0] - first[0])

    def growth_mb(self) -> float | None:
        """How much more memory the last quarter of the way takes than the second one.

        The way begins with the first finished shard; the last tenth of it, where processes end,
        is left out.
        """
        begin = next((when for when, count in self.parts if count), float("inf"))
        busy = [mb for when, mb in self.memory if when >= begin]
        busy = busy[: len(busy) * 9 // 10]
        quarter = len(busy) // 4
        if not quarter:
            return None
        return round(mean(busy[-quarter:]) - mean(busy[quarter : 2 * quarter]), 1)


def write_listing(images: Path, table: Path) -> Path:
    """A table of the .jpg files in a folder, for `measure_score`."""
    names = sorted(path.name for path in images.glob("*.jpg"))
    table.write_text("\n".join(["image", *names, ""]), encoding="utf-8")
    return table


def measure_score(
    bundle: Path,
    table: Path,
    images: Path,
    *,
    column: str = "image",
    workers: int = 2,
    limit_s: float = 20.0,
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a table by the command, between two windows of the limit.

    Args:
        images: a folder of .jpg files, which the limit takes as well.
        workers: of the command, and threads of the limit.
        limit_s: seconds of each of the limit's windows.
        options: further words for the command.

    Returns:
        images, seconds and images_s of the whole scoring, its start included; images_s_steady,
        between the first and the last shard; limit_before and limit_after, images/s; ratio and
        ratio_steady, to their mean; peak_mb of all processes, and growth_mb, what they take more
        towards the end than before.

    Raises:
        StartError: the limit ended.
        RuntimeError: the command ended with an error.
    """
    with tempfile.TemporaryDirectory(prefix="score") as name:
        folder = Path(name)
        with Limit.beside(bundle, images, log=folder / "limit.log") as limit:
            before = limit.window(workers, limit_s).images_s
            words = ["--images", str(images), "--column", column, "--workers", str(workers)]
            about, course = _scored(folder, [str(bundle), str(table), *words, *options])
            after = limit.window(workers, limit_s).images_s
    return _summary(about, course, before, after)


def _scored(folder: Path, words: Sequence[str]) -> tuple[dict[str, Any], Course]:
    output, log, course = folder / "scores.parquet", folder / "score.log", Course()
    command = [sys.executable, "-c", COMMAND, "score", *words, "--output", str(output), "--json"]
    begin = time.monotonic()
    with running(command, log=log) as process:
        while process.poll() is None:
            now = time.monotonic() - begin
            course.memory.append((now, memory_of(process.pid).now))
            parts = Path(f"{output}.parts").glob("[0-9]*.parquet")
            course.parts.append((now, len(list(parts))))
            time.sleep(EVERY_S)
    if process.returncode:
        raise RuntimeError(f"the scoring ended with {process.returncode}; it said:\n{tail(log)}")
    about = json.loads(Path(f"{output}.json").read_text(encoding="utf-8"))
    return about | {"whole_s": time.monotonic() - begin}, course


def _summary(about: dict[str, Any], course: Course, before: float, after: float) -> dict[str, Any]:
    limit, images_s = mean([before, after]), about["images"] / about["whole_s"]
    shards_s = course.shards_s()
    steady = None if shards_s is None else shards_s * about["order"]["shard"]
    return {
        "images": about["images"],
        "errors": about["errors"],
        "seconds": round(about["whole_s"], 1),
        "images_s": round(images_s, 1),
        "images_s_steady": None if steady is None else round(steady, 1),
        "limit_before": round(before, 1),
        "limit_after": round(after, 1),
        "ratio": round(images_s / limit, 3),
        "ratio_steady": None if steady is None else round(steady / limit, 3),
        "peak_mb": round(max((mb for _, mb in course.memory), default=0.0)),
        "growth_mb": course.growth_mb(),
    }
