"""Workers that hold a part of the images each: equal steps, every image once, gradients add up."""

from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.multiprocessing.spawn import spawn

from search.params import Params
from search.training.batches import ELSEWHERE, Batches, Fold
from search.training.ranks import Ranks
from search.training.task import Epoch
from search.training.train import train_fold
from tests.search.training.test_ranks import Outcome, assert_alike
from tests.search.training.test_train import a_fold, a_task, some_params

N = 64  # 42 train, 22 are predicted
WORLD = 2
CASES = {
    # One batch holds them all: whoever draws it, its gradient is the same.
    "whole": some_params(batch_size=64, dropout=0, balance="class_weights", label_smoothing=0.1),
    "short": some_params(batch_size=8, dropout=0),
    "drawn": some_params(backbone="cnn_batchnorm", batch_size=5, balance="sampler", mixup=0.3),
}


def a_shard(fold: Fold, ranks: Ranks) -> Fold:
    """What one worker holds of a fold: a map of its own rows."""
    mine = fold.train_rows[ranks.divide(fold.train_labels, seed=1)]
    own = np.union1d(mine, ranks.spread(fold.val_rows))
    rows = np.full(len(fold.pixels), ELSEWHERE)
    rows[own] = np.arange(len(own))
    return replace(
        fold,
        pixels=fold.pixels[own],
        train_rows=np.where(np.isin(fold.train_rows, mine), rows[fold.train_rows], ELSEWHERE),
        val_rows=rows[fold.val_rows],
        sharded=True,
    )


def train(params: Params, fold: Fold, ranks: Ranks) -> Outcome:
    torch.set_num_threads(1)
    epochs: list[dict[str, float]] = []

    def report(epoch: Epoch) -> None:
        epochs.append({k: v for k, v in epoch.metrics.items() if not k.endswith("seconds")})

    result = train_fold(fold, params, a_task(epochs=3), report=report, ranks=ranks)
    return Outcome(epochs, result.probs, result.state)


def train_in_group(rank: int, folder: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=WORLD
    )
    ranks = Ranks(rank, WORLD)
    shard = a_shard(a_fold(N), ranks)
    torch.save({n: train(p, shard, ranks) for n, p in CASES.items()}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Outcome]]:
    """What each of the processes saw in each case."""
    folder = tmp_path_factory.mktemp("group")
    spawn(train_in_group, (folder,), nprocs=WORLD)  # type: ignore[no-untyped-call]
    # What these processes wrote themselves, in this test.
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_worker_ends_with_the_same(together: list[dict[str, Outcome]], case: str) -> None:
    first, other = (outcomes[case] for outcomes in together)
    assert len(first.epochs) == 3
    assert repr(first.epochs) == repr(other.epochs)
    np.testing.assert_array_equal(first.probs, other.probs)
    torch.testing.assert_close(first.state, other.state, rtol=0, atol=0)
    assert first.epochs[-1]["auroc"] > 0.9


@pytest.mark.slow
def test_gradients_of_the_parts_add_up_to_the_batch_s(together: list[dict[str, Outcome]]) -> None:
    alone = train(CASES["whole"], a_fold(N), Ranks())
    for outcomes in together:
        assert_alike(outcomes["whole"], alone)  # its probabilities in order, too


@dataclass(frozen=True)
class Pass:
    """One worker's images of a pass, by their places in the whole fold."""

    batches: list[list[int]]
    counted: list[list[int]]


def a_pass(params: Params, fold: Fold, ranks: Ranks) -> Pass:
    """Images are told apart by their first pixel."""
    marked = np.zeros_like(fold.pixels)
    marked[:, 0, 0, 0] = np.arange(len(marked))
    batches, counted = [], []
    for images, shares in Batches(
        a_shard(replace(fold, pixels=marked), ranks), params, 2, seed=0, ranks=ranks
    ):
        places = images[:, 0, 0, 0].tolist()
        batches.append(places)
        counted.append([p for p, share in zip(places, shares, strict=True) if share.any()])
    return Pass(batches, counted)


@pytest.mark.parametrize(
    ("n", "world", "batch_size"), [(63, 2, 8), (63, 3, 8), (60, 4, 5), (9, 3, 64)]
)
def test_every_image_is_seen_once_a_pass_by_one_worker(n: int, world: int, batch_size: int) -> None:
    fold = a_fold(n)
    passes = [
        a_pass(some_params(batch_size=batch_size), fold, Ranks(rank, world))
        for rank in range(world)
    ]
    assert len({len(each.batches) for each in passes}) == 1
    seen = [place for each in passes for batch in each.counted for place in batch]
    assert sorted(seen) == fold.train_rows.tolist()
    sizes = [sum(len(each.counted[i]) for each in passes) for i in range(len(passes[0].counted))]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert all(len(batch) >= 2 for each in passes for batch in each.batches)


def test_each_pass_is_drawn_anew_from_the_same_part() -> None:
    fold, ranks = a_fold(N), Ranks(1, 2)
    batches = Batches(a_shard(fold, ranks), some_params(), 2, seed=0, ranks=ranks)
    first, second = ([mine[:n].tolist() for mine, n in batches._parts()] for _ in range(2))
    assert first != second
    assert sorted(chain(*first)) == sorted(chain(*second))


def test_the_division_is_fixed_and_spreads_every_class() -> None:
    labels = np.repeat([0, 1, 2], [50, 9, 4])
    parts = [Ranks(rank, 4).divide(labels, seed=5) for rank in range(4)]
    again: list[NDArray[np.int64]] = [Ranks(rank, 4).divide(labels, seed=5) for rank in range(4)]
    assert [part.tolist() for part in parts] == [part.tolist() for part in again]
    assert sorted(np.concatenate(parts)) == list(range(63))
    assert [len(part) for part in parts] == [16, 16, 16, 15]
    counts = np.stack([np.bincount(labels[part], minlength=3) for part in parts])
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert parts[0].tolist() != Ranks(0, 4).divide(labels, seed=6).tolist()
