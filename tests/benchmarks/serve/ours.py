"""The service on a Ray of its own: `python -m tests.benchmarks.serve.ours BUNDLE --port N`.

Prints one JSON object once it is ready, with the seconds that took on the warm Ray, and serves
until SIGTERM.
"""

import argparse
import json
import logging
import os
from pathlib import Path
from time import perf_counter

from cluster.connect import connected
from serving.config import ServingConfig
from serving.start import start_service


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--engine", choices=("onnx", "int8"), default="onnx")
    parser.add_argument("--whole", action="store_true", help="no cascade")
    parser.add_argument("--keys", type=Path, help="file of API keys; else none are asked for")
    parser.add_argument("--waiting", type=int, help="images that may wait; else the default")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    limits = {}
    if given.waiting is not None:
        limits = dict.fromkeys(("max_waiting_images", "max_ongoing_requests"), given.waiting)
    config = ServingConfig(
        bundle=given.bundle,
        bundle_root=given.bundle.parent,  # a swap may name the one beside it
        port=given.port,
        cpus=os.cpu_count() or 1,
        max_replicas=1,
        engine=given.engine,
        cascade=not given.whole,
        keys=given.keys,
        explain=None,  # nothing here asks for any, and all CPUs are the replica's
        rate=None,
        **limits,
    )
    with connected():
        begin = perf_counter()
        start_service(config, blocking=True, announce=lambda _: _tell(perf_counter() - begin))


def _tell(ready_s: float) -> None:
    print(json.dumps({"ready_s": ready_s}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
