"""Two processes train as one does: the same batches, gradients, weights and decisions."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import distributed
from torch.multiprocessing.spawn import spawn

from search.errors import TrainingError
from search.params import Augmentation, Params
from search.training.batches import Batches
from search.training.ranks import ALONE, Ranks
from search.training.task import Epoch
from search.training.train import train_fold
from tests.search.training.test_train import a_fold, a_task, some_params

# 42 images train in batches of 8: the last one holds two, and of three workers one has none.
N = 63
WORLD = 3
CASES = {
    "weighed": some_params(
        dropout=0, balance="class_weights", clip_norm=0.5, label_smoothing=0.1, ema=0.9
    ),
    "random": some_params(
        backbone="cnn_batchnorm", mixup=0.4, augment=Augmentation(rotation=30, noise=1)
    ),
    "diverging": some_params(optimizer="sgd", lr=1, schedule="constant", weight_decay=1),
}


@dataclass(frozen=True)
class Outcome:
    """What a process saw."""

    epochs: list[dict[str, float]]
    probs: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    state: dict[str, torch.Tensor] = field(default_factory=dict)
    error: str | None = None


def train(params: Params, ranks: Ranks = ALONE) -> Outcome:
    torch.set_num_threads(1)
    epochs: list[dict[str, float]] = []

    def report(epoch: Epoch) -> None:
        epochs.append({k: v for k, v in epoch.metrics.items() if not k.endswith("seconds")})

    task = a_task(epochs=3, patience=1, objective="nll")
    try:
        result = train_fold(a_fold(N), params, task, report=report, ranks=ranks)
    except TrainingError as error:
        return Outcome(epochs, error=str(error))
    return Outcome(epochs, result.probs, result.state)


def train_in_group(rank: int, folder: Path) -> None:
    """One process of a group that meets at a file: no port that another may take."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=WORLD
    )
    outcomes = {name: train(params, Ranks(rank, WORLD)) for name, params in CASES.items()}
    torch.save(outcomes, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Outcome]]:
    """What each of the processes saw in each case."""
    folder = tmp_path_factory.mktemp("group")
    spawn(train_in_group, (folder,), nprocs=WORLD)  # type: ignore[no-untyped-call]
    # What these processes wrote themselves, in this test.
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


def test_workers_train_as_one_process_does(together: list[dict[str, Outcome]]) -> None:
    alone = train(CASES["weighed"])
    assert len(alone.epochs) >= 2
    for outcome in together:
        assert_alike(outcome["weighed"], alone)


@pytest.mark.parametrize("case", CASES)
def test_every_worker_sees_the_same_and_decides_the_same(
    together: list[dict[str, Outcome]], case: str
) -> None:
    first, *others = (outcomes[case] for outcomes in together)
    assert first.epochs or first.error
    for other in others:
        assert repr(other.epochs) == repr(first.epochs)
        assert other.error == first.error
        np.testing.assert_array_equal(other.probs, first.probs)
        torch.testing.assert_close(other.state, first.state, rtol=0, atol=0)


def test_a_loss_that_is_not_a_number_ends_every_worker(together: list[dict[str, Outcome]]) -> None:
    errors = {outcomes["diverging"].error for outcomes in together}
    assert len(errors) == 1
    assert "the loss is nan" in str(errors)


def test_each_image_of_a_batch_goes_to_one_worker() -> None:
    batch = np.array([7, 3, 9, 1, 4])
    shares = [Ranks(rank, 2).share(batch) for rank in range(2)]
    assert [(mine.tolist(), n) for mine, n in shares] == [([7, 9, 4], 3), ([3, 1], 2)]


def test_a_worker_without_an_image_takes_part_by_stand_ins() -> None:
    shares = [Ranks(rank, 3).share(np.array([5, 6])) for rank in range(3)]
    assert [(mine.tolist(), n) for mine, n in shares] == [([5, 6], 1), ([6, 5], 1), ([5, 6], 0)]


def test_stand_ins_have_no_share_and_are_not_mixed() -> None:
    params = some_params(mixup=1.0)
    batches = Batches(a_fold(N), params, 2, seed=0, ranks=Ranks(2, 3))
    *_, (images, shares) = batches
    assert shares.tolist() == [[0, 0], [0, 0]]
    x = images.float()
    mixed, targets = batches.mix(x, shares)
    assert mixed is x
    assert targets is shares


def test_the_order_is_the_same_however_many_workers_there_are() -> None:
    params = some_params()
    whole = [shares for _, shares in Batches(a_fold(N), params, 2, seed=3)]
    halves = [
        [shares for _, shares in Batches(a_fold(N), params, 2, seed=3, ranks=Ranks(rank, 2))]
        for rank in range(2)
    ]
    for batch, even, odd in zip(whole[:-1], *(half[:-1] for half in halves), strict=True):
        assert batch[0::2].tolist() == even.tolist()
        assert batch[1::2].tolist() == odd.tolist()


def test_every_worker_predicts_as_many_rows() -> None:
    spread = [Ranks(rank, 2).spread(np.array([4, 5, 6])) for rank in range(2)]
    assert [rows.tolist() for rows in spread] == [[4, 6], [5, 4]]
    assert Ranks(1, 2).spread(np.array([4])).tolist() == [4]


def test_workers_augment_by_seeds_of_their_own() -> None:
    params = some_params(augment=Augmentation(noise=1))
    fold = a_fold(N)
    drawn = [next(iter(Batches(fold, params, 2, seed=0, ranks=r)))[0] for r in (ALONE, Ranks(1, 2))]
    assert not torch.equal(drawn[0][1], drawn[1][0])
    assert ALONE.seed(5) == 5 != Ranks(1, 2).seed(5)


def assert_alike(outcome: Outcome, alone: Outcome) -> None:
    assert len(outcome.epochs) == len(alone.epochs)
    for mine, its in zip(outcome.epochs, alone.epochs, strict=True):
        for name in ("train_loss", "nll", "auroc", "lr"):
            assert mine[name] == pytest.approx(its[name], abs=1e-5), name
    np.testing.assert_allclose(outcome.probs, alone.probs, atol=1e-5)
    for name, value in alone.state.items():
        torch.testing.assert_close(outcome.state[name], value, rtol=0, atol=1e-5)
