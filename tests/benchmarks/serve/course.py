"""One whole benchmark: what is measured, in which order, and what it comes to."""

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from search.errors import ConsiliumError
from serving.http.keys import add_key
from tests.benchmarks.serve.contenders import OURS, Contender, contenders, ours, serving
from tests.benchmarks.serve.limit import Limit
from tests.benchmarks.serve.material import write_bundle, write_images
from tests.benchmarks.serve.processes import StartError, memory_of
from tests.benchmarks.serve.strain import overload, swap_under_load
from tests.benchmarks.serve.trained import Trained, take_labelled, write_trained
from tests.benchmarks.serve.variants import Times, compare_cascade, compare_int8
from tests.benchmarks.serve.windows import CORES, Cell, measure, send

MANY = 32  # clients that servers are compared at
WARM_CLIENTS = 8
FAILURES = (StartError, httpx.HTTPError, subprocess.SubprocessError, ConsiliumError)
Announce = Callable[[str], object]


@dataclass(frozen=True)
class Plan:
    """How long and how often."""

    seconds: float = 5
    repeats: int = 3
    clients: tuple[int, ...] = (1, 8, MANY, 128)
    overload_s: float = 300


@dataclass(frozen=True)
class Row:
    """One server at all numbers of clients; peak_mb is of all its processes, shared pages twice."""

    row: str
    settings: str
    cells: list[Cell]
    peak_mb: float
    ready_s: float | None

    def at(self, clients: int) -> Cell | None:
        """The cell of so many clients."""
        return next((cell for cell in self.cells if cell.clients == clients), None)


@dataclass
class Course:
    """A folder for all that is made, and what was measured so far."""

    folder: Path
    plan: Plan
    bundle: Path | None = None  # a real one, with its config
    config: Path | None = None
    rows: list[Row] = field(default_factory=list)
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)
    limit: dict[str, float] = field(default_factory=dict)
    _learned: Trained | None = None

    def go(
        self, rows: Sequence[str], extras: Sequence[str], *, announce: Announce
    ) -> dict[str, Any]:
        """Measure these rows and extras; the figures of the line of JSON."""
        self._prepare(announce)
        with Limit.beside(self._served, self._images, log=self._log) as limit:
            for row in rows:
                if row != "limit":
                    self._measure_row(row, limit, announce)
            paces = {n: limit.window(n, self.plan.seconds) for n in sorted({1, CORES})}
            self.limit = {
                "img_s": paces[CORES].images_s,
                "one_img_s": paces[1].images_s,
                "one_p50_ms": paces[1].p50_ms,
                "peak_mb": memory_of(limit.pid).peak,
            }
        ways = {
            "swap": self._swap,
            "overload": self._overload,
            "cascade": self._cascade,
            "int8": self._int8,
        }
        for extra in extras:
            try:
                ways[extra](announce)
            except Exception as error:  # what was measured before is not lost
                announce(f"{extra} left out: {type(error).__name__}: {error}")
        return self.figures()

    def figures(self) -> dict[str, Any]:
        """What is worth keeping of it all; what was not measured is null."""
        cells = {row.row: row.at(MANY) for row in self.rows}
        one = next((row.at(1) for row in self.rows if row.row == OURS[0]), None)
        peers = {name: c for name, c in cells.items() if c is not None and name not in OURS}
        own, best = cells.get(OURS[0]), max((c.fraction for c in peers.values()), default=None)
        limits = [cell.limit_s for cell in cells.values() if cell is not None]
        strained = self.extras.get("overload", {})
        return {
            "limit_img_s": median(limits) if limits else self.limit["img_s"],
            "service_img_s": own and own.images_s,
            "fraction_of_limit": own and own.fraction,
            "ratio_to_best_peer": own.fraction / best if own and best else None,
            "p50_ms_one_client": one and one.p50_ms,
            "p50_over_limit_ms": one and one.over_ms,
            "overload_errors": strained.get("errors"),
            "overload_p99_ms": strained.get("accepted_p99_ms"),
            "overload_growth_mb": strained.get("growth_mb"),
            "ready_s": next((r.ready_s for r in self.rows if r.ready_s is not None), None),
            "swap_failed": self.extras.get("swap", {}).get("failed"),
            "cascade_ratio": self.extras.get("cascade", {}).get("cascade_ratio"),
            "cascade_auroc_difference": self.extras.get("cascade", {}).get("auroc_difference"),
            "int8_gain": self.extras.get("int8", {}).get("int8_gain"),
            "int8_auroc_loss": self.extras.get("int8", {}).get("int8_auroc_loss"),
            "peers": {name: cell.images_s for name, cell in peers.items()},
            "peers_fraction": {name: cell.fraction for name, cell in peers.items()},
            "rows": [asdict(row) for row in self.rows],
            "limit": self.limit,
            "extras": self.extras,
        }

    @property
    def tables(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """For people."""
        found = [(self._title(), [line for row in self.rows for line in _lines(row)])]
        found += [(name, [values]) for name, values in self.extras.items()]
        return [(title, lines) for title, lines in found if lines]

    def _title(self) -> str:
        limit = self.limit
        return (
            f"limit: {limit['img_s']:.0f} images/s on {CORES} threads, {limit['peak_mb']:.0f} MB; "
            f"on one {limit['one_img_s']:.0f}, p50 {limit['one_p50_ms']:.1f} ms"
        )

    def _prepare(self, announce: Announce) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = self.folder / "servers.log"
        self._images = self.folder / "images"
        bundles = self.folder / "bundles"
        self._served, self._other = bundles / "first", bundles / "second"
        if not self._other.is_dir():
            announce("drawing images, writing two bundles")
            write_images(self._images)
            for seed, target in enumerate((self._served, self._other)):
                write_bundle(target, self._images, seed=seed)

    def _measure_row(self, row: str, limit: Limit, announce: Announce) -> None:
        """Start the row's server and measure it; of several settings the fastest."""
        tried = contenders(row, self._served)
        try:
            best = max(tried, key=self._try) if len(tried) > 1 else tried[0]
            announce(f"measuring {best.settings}")
            self.rows.append(self._measure(best, limit))
        except FAILURES as error:
            announce(f"{row} left out: {error}")

    def _try(self, contender: Contender) -> float:
        """Images a second of a short window at many clients."""
        with serving(contender, self._images, log=self._log) as server:
            self._send(server.url, WARM_CLIENTS)
            return float(self._send(server.url, MANY)["images_s"])

    def _send(self, url: str, clients: int) -> dict[str, Any]:
        return send(url, self._images, clients=clients, seconds=self.plan.seconds)

    def _measure(self, contender: Contender, limit: Limit) -> Row:
        plan = self.plan
        with serving(contender, self._images, log=self._log) as server:
            self._send(server.url, WARM_CLIENTS)
            cells = [
                measure(
                    server.url,
                    self._images,
                    limit,
                    clients=clients,
                    seconds=plan.seconds,
                    repeats=plan.repeats,
                )
                for clients in plan.clients
            ]
            return Row(contender.row, contender.settings, cells, server.peak_mb, server.ready_s)

    def _swap(self, announce: Announce) -> None:
        announce("swapping bundles under load")
        keys = self.folder / "keys.json"
        keys.unlink(missing_ok=True)
        key = add_key(keys, "bench", ["admin", "predict"])  # admin calls are for those who have one
        way = replace(ours(OURS[0], self._served, "--keys", str(keys)), key=key)
        with serving(way, self._images, log=self._log) as server:
            self.extras["swap"] = swap_under_load(
                server,
                self._images,
                (self._served, self._other),
                seconds=max(4 * self.plan.seconds, 12),
            )

    def _overload(self, announce: Announce) -> None:
        announce(f"four times too many images for {self.plan.overload_s:g} s")
        with serving(ours(OURS[0], self._served), self._images, log=self._log) as server:
            capacity = self._send(server.url, MANY)["images_s"]
            self.extras["overload"] = overload(
                server, self._images, capacity=capacity, seconds=self.plan.overload_s
            )

    def _cascade(self, announce: Announce) -> None:
        trained = self._trained(announce)
        announce("with a cascade and without")
        found = compare_cascade(trained, log=self._log, **self._times)
        if found is None:
            announce("this bundle has no cascade")
        else:
            self.extras["cascade"] = found

    def _int8(self, announce: Announce) -> None:
        trained = self._trained(announce)
        announce("8-bit members and float ones")
        self.extras["int8"] = compare_int8(
            self._served, self._images, trained, log=self._log, **self._times
        )

    def _trained(self, announce: Announce) -> Trained:
        """Made once, on the first call."""
        if self._learned is None:
            if self.bundle is not None and self.config is not None:
                self._learned = take_labelled(self.bundle, self.config, self.folder / "labelled")
            else:
                announce("training and building a bundle with a cascade")
                self._learned = write_trained(self.folder / "trained", log=self._log)
        return self._learned

    @property
    def _times(self) -> Times:
        return {"seconds": self.plan.seconds, "repeats": self.plan.repeats}


def _lines(row: Row) -> list[dict[str, Any]]:
    return [
        {
            "server": row.settings,
            "clients": cell.clients,
            "images/s": cell.images_s,
            "of the limit": cell.fraction,
            "p50 ms": cell.p50_ms,
            "over the limit's": cell.over_ms,
            "p99 ms": cell.p99_ms,
            "errors": cell.errors,
            "peak MB": row.peak_mb,
        }
        for cell in row.cells
    ]
