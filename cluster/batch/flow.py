"""The one file of Ray Data: blocks of rows through a pool of actors."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from cluster.batch.scorer import Scorer, Task
from search.errors import ClusterError, ConfigError


@dataclass(frozen=True)
class Pool:
    """The actors: so many, each with one CPU, or one CPU and a share of a GPU."""

    size: int
    gpus: float


def pool_of(workers: int | None, gpus: float) -> Pool:
    """As many actors as there are CPUs, or shares of GPUs. Ray must be connected.

    Raises:
        ConfigError: more of them than there is room for.
    """
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, there = int(total.get("CPU", 0)), total.get("GPU", 0.0)
    room = min(cpus, int(there / gpus + 1e-9)) if gpus else cpus
    if room < 1 or (workers or 0) > room:
        raise ConfigError(
            f"{workers or 1} workers with {gpus:g} GPU each need more than the {cpus} CPUs and "
            f"{there:g} GPUs here; lower --workers or --gpus"
        )
    return Pool(workers or room, gpus)


def flow(
    blocks: Iterable[Any],
    task: Task,
    pool: Pool,
    *,
    scorer: type[Scorer] = Scorer,
) -> Iterator[Any]:
    """Score blocks; each comes back, in any order, whatever becomes of the actors.

    Ray Data gives the blocks of an actor that died to another one, without end; the scorer itself
    counts the deaths (see cluster.batch.deaths).

    Args:
        blocks: tables of (shard, row, name).
        scorer: the actors' class.

    Yields:
        Tables of `cluster.batch.scorer.SCHEMA`.

    Raises:
        ClusterError: Ray itself failed.
        ConsiliumError: what an actor cannot go on with.
    """
    import ray.data

    _set_up()
    # Two blocks for each: the next one is there when the first is done.
    strategy = ray.data.ActorPoolStrategy(size=pool.size, max_tasks_in_flight_per_actor=2)
    dataset = ray.data.from_arrow(list(blocks)).map_batches(
        scorer,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        compute=strategy,
        fn_constructor_args=(task,),
        num_cpus=1,
        num_gpus=pool.gpus or None,
    )
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    except ray.exceptions.RayError as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
        raise ClusterError(
            f"Ray ended the scoring ({said}); run the same command again, which goes on from here"
        ) from error


def _set_up() -> None:
    """No bars and no logs of Ray Data's own."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.wait_for_min_actors_s = 0
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def shard_blocks(names: Sequence[str | None], shards: Iterable[tuple[int, range]]) -> Iterator[Any]:
    """A block of (shard, row, name) for each (number of a shard, its rows in the table)."""
    for number, rows in shards:
        columns = {
            "shard": pa.array([number] * len(rows), pa.int64()),
            "row": pa.array(range(len(rows)), pa.int64()),
            "name": pa.array(names[rows.start : rows.stop], pa.string()),
        }
        yield pa.table(columns)
