"""LitServe: two workers, batching by choice: `python -m … MEMBERS --port N --batch 1`."""

import argparse
from pathlib import Path
from typing import Annotated, Any

import litserve  # type: ignore[import-not-found]
import numpy as np
from fastapi import Body
from numpy.typing import NDArray

from tests.benchmarks.serve.peers.members import Members, read

WORKERS = 2


class Ensemble(litserve.LitAPI):  # type: ignore[misc]
    """Raw image bytes in, probabilities out."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(**options)
        self._folder = folder

    def setup(self, _: str) -> None:
        self._members = Members(self._folder)

    def decode_request(self, request: Annotated[bytes, Body()]) -> NDArray[np.uint8]:
        return read(request)

    def batch(self, inputs: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        return inputs

    def unbatch(self, output: list[dict[str, float]]) -> list[dict[str, float]]:
        return output

    def predict(self, x: Any) -> Any:
        # LitServe hands over one image where batches are off, else what `batch` gave.
        return self._members.ask(x) if isinstance(x, list) else self._members.ask([x])[0]

    def encode_response(self, output: dict[str, float]) -> Any:
        return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("members", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, default=1)
    given = parser.parse_args()
    wait = {"batch_timeout": 0.005} if given.batch > 1 else {}
    api = Ensemble(given.members, max_batch_size=given.batch, **wait)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=WORKERS)
    server.run(
        host="127.0.0.1",
        port=given.port,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )


if __name__ == "__main__":
    main()
