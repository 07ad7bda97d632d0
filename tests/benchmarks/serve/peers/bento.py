"""BentoML: two workers, with adaptive batching or without; started by `bentoml serve …:Single`.

BENCH_MEMBERS in the environment names the folder of graphs.
"""

import os
from pathlib import Path
from typing import Annotated, Any

import bentoml  # type: ignore[import-not-found]
from _bentoml_sdk.io_models import IORootModel  # type: ignore[import-not-found]
from bentoml.validators import ContentType  # type: ignore[import-not-found]

from tests.benchmarks.serve.peers.members import Members, read

WORKERS = 2


class Files(IORootModel[list[bytes]]):  # type: ignore[misc]
    """A raw body as a batch of one: BentoML's own batches come as forms, which cost more."""

    __root_input__ = True

    @classmethod
    async def from_http_request(cls, request: Any, _: Any) -> Any:
        return cls([await request.body()])


class _Ensemble:
    def __init__(self) -> None:
        self._members = Members(Path(os.environ["BENCH_MEMBERS"]))


@bentoml.service(workers=WORKERS)
class Single(_Ensemble):
    """One image at a time in each worker."""

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, file: Annotated[bytes, ContentType("image/jpeg")], /) -> dict[str, float]:
        return self._members.ask([read(file)])[0]


@bentoml.service(workers=WORKERS)
class Batched(_Ensemble):
    """What has come in the meantime, at once."""

    @bentoml.api(batchable=True, max_batch_size=8, input_spec=Files)  # type: ignore[untyped-decorator]
    def predict(self, files: list[bytes]) -> list[dict[str, float]]:
        return self._members.ask([read(file) for file in files])
