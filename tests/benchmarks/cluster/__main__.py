"""What faults cost, how fast tables are scored: python -m tests.benchmarks.cluster [--only PARTS].

Tables and progress go to stderr; the last line, on stdout, is one JSON object with a row per fault.
The parts:
service     machines of a service go, its head, every replica: under load, on virtual machines
search      a machine, the driver and the head of a search go
score       the images of a folder as a table, beside the limit of the serving benchmark
scale       a thousand nodes' worth of trials against a stub; 18 minutes, and only where it is named
"""

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cluster.console import messages, table
from tests.benchmarks.cluster.score import measure_score, write_listing
from tests.benchmarks.cluster.thousand import measure_thousand
from tests.benchmarks.serve.material import write_bundle, write_images
from tests.cluster.nodes import search_site, service_site
from tests.cluster.nodes.faults import Fault
from tests.cluster.nodes.machines import network
from tests.servers import PASSWORD, postgres, s3

MADE = 4000  # images, where none are given
PARTS = ("service", "search", "score", "scale")


class Bench:
    """The parts; what one of them has found stays found when another one fails."""

    def __init__(self, folder: Path, bundle: Path | None, images: Path | None) -> None:
        self._folder, self._bundle, self._images = folder, bundle, images
        self.figures: dict[str, Any] = {"faults": []}

    def service(self) -> None:
        with (
            network() as net,
            service_site.service_site(net, self._new("service")) as site,
        ):
            for cause in (
                service_site.update_all,
                service_site.lose_a_machine,
                service_site.lose_the_head,
            ):
                self._note(cause(site))

    def search(self) -> None:
        for cause in (
            search_site.lose_a_machine,
            search_site.kill_the_driver,
            search_site.lose_the_head,
        ):
            workers = 1 if cause is search_site.lose_a_machine else 2
            with search_part(self._new(cause.__name__), workers) as site:
                self._note(cause(site))

    def score(self) -> None:
        folder = self._new("score")
        images = self._images or write_images(folder / "images", files=MADE)
        bundle = self._bundle or write_bundle(folder / "bundle", images)
        listing = write_listing(images, folder / "table.csv")
        self.figures["score"] = measure_score(bundle, listing, images)

    def scale(self) -> None:
        self.figures["scale"] = measure_thousand(self._new("scale"))

    def _new(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def _note(self, fault: Fault) -> None:
        self.figures["faults"].append(fault.row())
        messages.print(f"{fault.fault}: back after {fault.recovery_s:.1f} s")


@contextmanager
def search_part(folder: Path, workers: int) -> Iterator[search_site.SearchSite]:
    """A network, its servers and a cluster for one fault of a search."""
    with (
        network() as net,
        s3(net.ip) as bucket,
        postgres(net.ip) as storage,
        patch.dict(os.environ, {"PGPASSWORD": PASSWORD}),
        search_site.search_site(
            net, folder, bucket=bucket, storage=storage, workers=workers
        ) as site,
    ):
        yield site


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # of the S3 server: a line a request
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Plain)
    parser.add_argument("--only", default=",".join(PARTS[:3]), help="parts, by commas")
    parser.add_argument("--bundle", type=Path, help="to score with; one is made if absent")
    parser.add_argument("--images", type=Path, help="folder of images to score; made if absent")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as name:
        bench = Bench(Path(name), given.bundle, given.images)
        for part in given.only.split(","):
            messages.rule(part)
            attempt(getattr(bench, part), part, bench.figures)
    table("Faults", bench.figures["faults"], to=messages)
    print(json.dumps(bench.figures))  # noqa: T201


def attempt(part: Callable[[], None], name: str, figures: dict[str, Any]) -> None:
    """A part that fails costs no other part its figures; the JSON says that it failed."""
    try:
        part()
    except BaseException as error:  # pytest's skip is none of Exception's
        if isinstance(error, KeyboardInterrupt):
            raise
        messages.print(f"{name} failed: {error!r}")
        figures.setdefault("failed", {})[name] = f"{type(error).__name__}: {error}"[:300]


class Plain(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the text above."""


if __name__ == "__main__":
    main()
