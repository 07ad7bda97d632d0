"""Passes through a network that go on in smaller batches where a GPU has no room for them."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from search.errors import TrainingError

T = TypeVar("T")
Network = Callable[[Tensor], Tensor]


class Room:
    """How many images there is room for in one pass.

    Attributes:
        size: None until a whole batch did not fit.
    """

    def __init__(self, image_size: int) -> None:
        self.size: int | None = None
        self._image_size = image_size

    def fit(self, attempt: Callable[[], T], n: int) -> T:
        """Do something with n images in passes of `size`; where they do not fit, again in halves.

        Raises:
            TrainingError: a single image does not fit.
        """
        while (found := _unless_full(attempt)) is None:
            self.size = self._halved(min(self.size or n, n))
        return found

    def _halved(self, n: int) -> int:
        if n <= 1:
            raise TrainingError(
                f"one image of {self._image_size} pixels does not fit on the GPU; lower image_size"
            )
        torch.cuda.empty_cache()  # does nothing where CUDA is not in use
        return n // 2


def outputs(
    network: Network,
    inputs: NDArray[np.uint8] | NDArray[np.float32],
    rows: NDArray[np.int64],
    *,
    device: str,
    batch_size: int = 64,
) -> Iterator[Tensor]:
    """What a network in evaluation mode gives for rows of an array, a batch at a time, in order.

    Args:
        inputs: (n, size, size, 3) images, or (n, d) features; may be memory-mapped.

    Raises:
        TrainingError: a single image does not fit.
    """
    room = Room(inputs.shape[1])
    start = 0

    def attempt() -> Tensor:
        chosen = rows[start : start + (room.size or batch_size)]
        with torch.inference_mode():
            return network(torch.from_numpy(np.ascontiguousarray(inputs[chosen])).to(device))

    while start < len(rows):
        output = room.fit(attempt, min(batch_size, len(rows) - start))
        yield output
        start += len(output)


def _unless_full(attempt: Callable[[], T]) -> T | None:
    """None where memory ran out; what the attempt held is freed with the error's traceback."""
    try:
        return attempt()
    except torch.OutOfMemoryError:
        return None
