"""Metric families as plain Python: sums by labels, bounded, and their text for Prometheus."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence

Labels = tuple[str, ...]
MOST = 200  # combinations of labels; any more are counted together
OTHER = "other"


class Family:
    """One metric: its name, its labels, and a value for each combination of them seen."""

    kind = "untyped"

    def __init__(self, name: str, about: str, keys: Sequence[str] = ()) -> None:
        self.name, self.about, self.keys = name, about, tuple(keys)
        self._others = (OTHER,) * len(self.keys)
        self.values: dict[Labels, float] = {}

    def text(self) -> Iterator[str]:
        """Lines of the text exposition format 0.0.4.

        Source: https://prometheus.io/docs/instrumenting/exposition_formats/
        """
        yield f"# HELP {self.name} {self.about}"
        yield f"# TYPE {self.name} {self.kind}"
        yield from self._rows()

    def _rows(self) -> Iterator[str]:
        for labels, value in self.values.items():
            yield f"{self.name}{_braces(self.keys, labels)} {_number(value)}"

    def _known(self, labels: Labels) -> Labels:
        """The labels, or those of all others where there are too many."""
        if labels in self.values or len(self.values) < MOST:
            return labels
        return self._others


class Count(Family):
    """What only grows."""

    kind = "counter"

    def __init__(self, name: str, about: str, keys: Sequence[str] = ()) -> None:
        super().__init__(name, about, keys)
        self._taken: dict[Labels, float] = {}

    def add(self, *labels: str) -> None:
        """Count one."""
        known = labels if labels in self.values else self._known(labels)
        self.values[known] = self.values.get(known, 0) + 1

    def news(self) -> list[tuple[Labels, float]]:
        """What was counted since this was asked last."""
        found = [(k, v - self._taken.get(k, 0)) for k, v in self.values.items()]
        self._taken = dict(self.values)
        return [(labels, by) for labels, by in found if by > 0]


class Level(Family):
    """What goes up and down."""

    kind = "gauge"

    def put(self, *labels: str, value: float) -> None:
        """The value from now on; one that is no finite number changes nothing."""
        if math.isfinite(value):
            self.values[self._known(labels)] = float(value)

    def clear(self) -> None:
        """All values that are there are 0: what was exported once stays, wherever it is read."""
        self.values = dict.fromkeys(self.values, 0.0)


class Spread(Family):
    """How values spread over buckets, each up to and with its bound; it has no labels."""

    kind = "histogram"

    def __init__(self, name: str, about: str, bounds: Sequence[float]) -> None:
        super().__init__(name, about)
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sums = [0.0] * (len(bounds) + 1)
        self._taken = (list(self.counts), list(self.sums))

    def observe(self, value: float) -> None:
        """Sort a value in; one that is no finite number is left out."""
        if math.isfinite(value):
            bucket = bisect_left(self.bounds, value)
            self.counts[bucket] += 1
            self.sums[bucket] += value

    def news(self) -> list[tuple[float, int]]:
        """What came since this was asked last: each bucket's mean, and how many values.

        As many values at the mean have the same counts in all buckets, and the same sum.
        """
        counts, sums = self._taken
        found = [
            (self._inside(bucket, (self.sums[bucket] - sums[bucket]) / n), n)
            for bucket in range(len(self.counts))
            if (n := self.counts[bucket] - counts[bucket])
        ]
        self._taken = (list(self.counts), list(self.sums))
        return found

    def _inside(self, bucket: int, mean: float) -> float:
        """A mean that rounding has put just out of its bucket, put back."""
        if bucket:
            mean = max(mean, math.nextafter(self.bounds[bucket - 1], math.inf))
        return min(mean, self.bounds[bucket]) if bucket < len(self.bounds) else mean

    def _rows(self) -> Iterator[str]:
        total = 0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            total += count
            yield f"{self.name}_bucket{_braces(('le',), (_number(bound),))} {total}"
        yield f"{self.name}_sum {_number(sum(self.sums))}"
        yield f"{self.name}_count {total}"


def _braces(keys: Sequence[str], labels: Labels) -> str:
    pairs = ",".join(f'{k}="{_escaped(v)}"' for k, v in zip(keys, labels, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)
