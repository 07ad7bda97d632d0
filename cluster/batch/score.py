"""A table of images through a bundle: shard by shard, and one file in the end."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

from cluster.batch.deaths import start_deaths
from cluster.batch.finish import conclude, finished
from cluster.batch.flow import flow, pool_of, shard_blocks
from cluster.batch.order import Order
from cluster.batch.output import as_columns
from cluster.batch.parts import Parts
from cluster.batch.scorer import Scorer, Task, bundle_files
from search.errors import ClusterError, ConsiliumError

Progress = Callable[[int, int], None]  # (images done, of how many)


def score(
    order: Order,
    *,
    connect: Callable[[], AbstractContextManager[object]] = nullcontext,
    progress: Progress = lambda _done, _n: None,
    scorer: type[Scorer] = Scorer,
) -> dict[str, Any]:
    """Score what is not scored yet, write the output and take the parts away.

    A killed command is gone on with by the same call: a finished shard is not done again.

    Args:
        connect: Ray for the length of its block; not entered where nothing is left to score.
        scorer: the actors' class.

    Returns:
        What `<output>.json` holds: counts, figures, the bundle and its operating point.

    Raises:
        ConsiliumError: parts or an output of another order, or what ended the scoring.
    """
    parts = Parts(order.asked.output)
    about = finished(order, parts)
    if about is not None:
        return about
    with parts.alone():
        # Another command may have finished it just now.
        return finished(order, parts) or _go_on(
            order, parts, connect, progress=progress, scorer=scorer
        )


def _go_on(
    order: Order,
    parts: Parts,
    connect: Callable[[], AbstractContextManager[object]],
    *,
    progress: Progress,
    scorer: type[Scorer],
) -> dict[str, Any]:
    done = parts.begin(order.identity())
    left = [number for number in range(order.n_shards) if number not in done]
    n_left = sum(len(order.rows_of(number)) for number in left)
    begin = perf_counter()
    if left:
        with connect():
            _score_shards(order, parts, left, progress, scorer)
    seconds = perf_counter() - begin
    return conclude(order, parts, n_left, seconds)


def _score_shards(
    order: Order, parts: Parts, left: list[int], progress: Progress, scorer: type[Scorer]
) -> None:
    pool, task = pool_of(order.asked.workers, order.asked.gpus), task_of(order)
    n_rows = len(order.table.names)
    done = n_rows - sum(len(order.rows_of(number)) for number in left)
    progress(done, n_rows)
    blocks = shard_blocks(order.table.names, ((n, order.rows_of(n)) for n in left))
    for block in flow(blocks, task, pool, scorer=scorer):
        _refuse(block)
        number = block["shard"][0].as_py()
        if block.num_rows != len(order.rows_of(number)):
            raise ClusterError(f"shard {number} came back in pieces; report this")
        parts.write(number, as_columns(block, order.bundle.manifest.classes))
        done += block.num_rows
        progress(done, n_rows)


def _refuse(block: Any) -> None:
    stop = block["stop"][0].as_py()
    if stop is not None:
        raise ConsiliumError(stop)


def task_of(order: Order) -> Task:
    """What every actor is told. Ray must be connected."""
    import ray

    return Task(
        bundle=str(order.bundle.folder),
        digest=order.bundle.manifest.digest,
        roots=order.roots,
        engine=order.asked.engine,
        device=order.device,
        operating_point=order.asked.operating_point,
        prevalence=order.asked.prevalence,
        deaths=start_deaths(),
        files=ray.put(bundle_files(order.bundle)) if has_other_nodes() else None,
    )


def has_other_nodes() -> bool:
    """Whether actors may be where this machine's folders are not."""
    import ray

    return len(ray.nodes()) > 1  # type: ignore[no-untyped-call]
