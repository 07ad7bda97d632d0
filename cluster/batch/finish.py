"""From finished parts to the output, and what is said about it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from cluster.batch.order import Order
from cluster.batch.output import is_csv, write_output
from cluster.batch.parts import Parts, check_same
from search.atomic import write_json
from search.errors import ConfigError
from search.location import explained, open_place, read_bytes

NOTE = "educational and research use; not a medical device"


def finished(order: Order, parts: Parts) -> dict[str, Any] | None:
    """What was said when this very order was finished; None where it is not.

    Raises:
        ConfigError: something else stands in the output's place.
    """
    output = order.asked.output
    place = open_place(output)
    with explained(place):
        if not place.exists() or parts.are_there():
            return None
    try:
        about = json.loads(read_bytes(open_place(_beside(output))))
        found = about["order"]
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{output}: stands there and tells of no order; name another --output"
        ) from error
    check_same(order.identity(), found, output)
    return dict(about)


def conclude(order: Order, parts: Parts, n_scored: int, seconds: float) -> dict[str, Any]:
    """Write the output and `<output>.json`, and take the parts away.

    Args:
        n_scored: images that were scored by this command, in so many seconds.

    Returns:
        What the JSON holds.
    """
    output, counts = order.asked.output, Counter[str]()

    def describe() -> Mapping[str, Any]:
        return _described(order, counts)

    write_output(output, _joined(order, parts, counts), describe)
    about = {
        "output": output,
        **describe(),
        "scored_now": n_scored,
        "seconds": round(seconds, 3),
        "images_s": round(n_scored / seconds, 2) if n_scored else None,
    }
    write_json(open_place(_beside(output)), about)
    parts.remove()
    return about


def _beside(output: str) -> str:
    return f"{output}.json"


def _joined(order: Order, parts: Parts, counts: Counter[str]) -> Iterator[Any]:
    """The table's columns and the parts', a shard at a time."""
    rows = order.table.rows if is_csv(order.asked.output) else order.table.typed()
    for number in range(order.n_shards):
        within, part = order.rows_of(number), parts.read(number)
        theirs = rows.slice(within.start, len(within))
        if part.num_rows != len(within):
            raise ConfigError(f"{parts.location}: part {number} is of other rows; take it away")
        counts.update(_kind(error) for error in part["error"].to_pylist())
        counts.update(part["decision"].drop_null().to_pylist())
        counts["novel"] += sum(part["novel"].drop_null().to_pylist())
        columns = dict(zip(theirs.column_names, theirs.columns, strict=True))
        scored = dict(zip(part.column_names, part.columns, strict=True))
        yield pa.table(columns | scored)


def _kind(error: str | None) -> str:
    return "scored" if error is None else f"error: {error.partition(':')[0]}"


def _described(order: Order, counts: Counter[str]) -> dict[str, Any]:
    manifest, point = (
        order.bundle.manifest,
        order.bundle.operating_point(order.asked.operating_point),
    )
    errors = {k.removeprefix("error: "): n for k, n in counts.items() if k.startswith("error: ")}
    return {
        "note": NOTE,
        "bundle": {
            "name": manifest.name,
            "version": manifest.version,
            "digest": manifest.digest,
            "classes": manifest.classes,
            "positive": manifest.positive,
        },
        "operating_point": None
        if point is None
        else point.model_dump(
            mode="json", include={"name", "threshold", "refer_from", "certified", "reason"}
        ),
        "at_prevalence": dict(order.asked.prevalence) or None,
        "images": len(order.table.names),
        "scored": counts["scored"],
        "errors": dict(sorted(errors.items())),
        "decisions": {name: counts[name] for name in ("positive", "negative", "refer")}
        if point is not None and manifest.positive is not None
        else None,
        "novel": counts["novel"],
        "order": order.identity(),
    }
