"""Several processes that train one trial together: who takes which images, and how they add up.

The batch of the params is the global one: the order of the images, the batches they fall into and
the gradient of each batch do not depend on the number of workers, unless each of them holds a part
of the images alone (resources.shard). What is random within an image's
way does: each worker augments, and draws dropout, by a seed of its own. BatchNorm learns from the
whole batch on GPUs; on CPU each worker normalises by its own images, and the first one's running
statistics count.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from search.training.backbones import Classifier

Forward = Callable[[Tensor], Tensor]
STRIDE = 1_000_003  # between the workers' seeds, wider than studies' seeds lie apart


@dataclass(frozen=True)
class Ranks:
    """One of the processes that train a trial; alone it does nothing that is not done anyway.

    Attributes:
        rank: of this process, from 0; the first one writes the trial's files.
        world: how many there are. More than one need torch's default process group.
        device: where gathered tensors live: NCCL takes none on the CPU.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    def seed(self, seed: int) -> int:
        """What this process augments and drops out by; the first one's is the seed itself."""
        return seed + self.rank * STRIDE

    def share(self, batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """This process's part of a batch.

        Returns:
            its images, and how many of them count. Where a short batch leaves it fewer than two,
            others' images stand in, so that it takes part and BatchNorm has statistics.
        """
        mine = batch[self.rank :: self.world]
        others = np.delete(batch, np.s_[self.rank :: self.world])
        lacking = max(min(2, len(batch)) - len(mine), 0)
        return np.concatenate([mine, others[:lacking]]), len(mine)

    def divide(self, labels: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
        """This process's part of the training images where each holds a part alone.

        The same seed divides them the same way; every class is spread evenly over all processes.

        Args:
            labels: (n_images,) class indices.

        Returns:
            indices of its images, in order: as many as `indices[rank::world]` would be.
        """
        order = np.random.default_rng(seed).permutation(len(labels))
        by_class = order[np.argsort(labels[order], kind="stable")]
        return np.sort(by_class[self.rank :: self.world])

    def share_of_own(
        self, places: NDArray[np.int64], own: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], int]:
        """This process's part of a batch where each draws from images of its own.

        Args:
            places: of the batch in the whole pass, from 0; the n-th place is of process
                n modulo world.
            own: this process's images in the order in which it draws them.

        Returns:
            as `share`; its own images stand in.
        """
        mine = places[places % self.world == self.rank] // self.world
        lacking = max(min(2, len(own)) - len(mine), 0)
        return np.concatenate([own[mine], np.delete(own, mine)[:lacking]]), len(mine)

    def whole_norms(self, classifier: Classifier) -> Classifier:
        """Let BatchNorm on a GPU see the whole batch; before layers are frozen or optimised."""
        if self.world > 1 and self.device.startswith("cuda"):
            whole: Classifier = convert_sync_batchnorm(classifier)  # type: ignore[no-untyped-call]
            return whole
        return classifier

    def wrap(self, module: nn.Module, forward: Forward) -> Forward:
        """`forward`, a way through the module, such that backward averages over all processes.

        Every parameter that trains must be on that way.
        """
        if self.world == 1:
            return forward
        wrapped: Forward = DistributedDataParallel(_Way(module, forward))
        return wrapped

    def total(self, value: Tensor) -> Tensor:
        """The sum over all processes, without a gradient."""
        if self.world == 1:
            return value
        value = value.detach().clone()
        distributed.all_reduce(value)
        return value

    def align(self, module: nn.Module) -> None:
        """Give every process the first one's statistics: all predict with one classifier."""
        if self.world > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)

    def spread(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows that this process predicts: as many as every other one's, some twice over."""
        n_each = -(-len(rows) // self.world)
        return np.resize(rows, n_each * self.world)[self.rank :: self.world]

    def gather(self, probs: NDArray[np.float32], n: int) -> NDArray[np.float32]:
        """What all processes predicted of n rows they had by `spread`, in the rows' order.

        Args:
            probs: (n_each, n_classes), this process's.

        Returns:
            (n, n_classes), the same in every process.
        """
        if self.world == 1:
            return probs
        mine = torch.from_numpy(probs).to(self.device)
        parts = [torch.empty_like(mine) for _ in range(self.world)]
        distributed.all_gather(parts, mine)
        return torch.stack(parts, dim=1).flatten(0, 1)[:n].cpu().numpy()


ALONE = Ranks()


class _Way(nn.Module):
    """One way through a module as its forward, which is what DistributedDataParallel follows."""

    def __init__(self, module: nn.Module, forward: Forward) -> None:
        super().__init__()
        self.module = module
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(x)
