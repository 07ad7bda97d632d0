"""One trial: it learns, repeats itself, keeps its best epoch, and says when it cannot go on."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from search.config import PolicyConfig
from search.errors import TrainingError
from search.params import Params
from search.training.backbones import Classifier
from search.training.batches import Fold
from search.training.task import Epoch, Task
from search.training.train import train_fold

SIZE = 16


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def a_fold(n: int = 48, *, seed: int = 0) -> Fold:
    """Bright images are of class 1: learnable within an epoch or two."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    level = np.where(labels == 1, 180, 70)[:, None, None, None]
    noise = rng.integers(-40, 40, (n, SIZE, SIZE, 3))
    pixels = np.clip(level + noise, 0, 255).astype(np.uint8)
    half = 2 * n // 3
    rows = np.arange(n)
    return Fold(pixels, rows[:half], labels[:half], rows[half:], labels[half:])


def a_plateau(told: tuple[float, ...] | None, *, val_labels: np.ndarray) -> list[float]:
    """Learning rates of a trial of fixed epochs under a plateau schedule."""
    fold = dataclasses.replace(a_fold(), val_labels=val_labels)
    task = a_task(epochs=6, fixed_epochs=6, plateau_nll=told)
    result = train_fold(fold, some_params(schedule="plateau"), task)
    return [epoch["lr"] for epoch in result.history]


def test_a_finalist_s_plateaus_are_those_of_fold_0_and_not_of_its_own_fold() -> None:
    labels = a_fold().val_labels
    told = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert a_plateau(told, val_labels=labels) == a_plateau(told, val_labels=1 - labels)
    assert a_plateau(None, val_labels=labels) != a_plateau(None, val_labels=1 - labels)


def a_task(**changes: Any) -> Task:
    settings: dict[str, Any] = {
        "n_classes": 2,
        "positive": 1,
        "policy": PolicyConfig(sensitivity=0.95),
        "objective": "nll",
        "epochs": 3,
    }
    return Task(**{**settings, **changes})


def some_params(**changes: Any) -> Params:
    settings = {"backbone": "cnn", "image_size": SIZE, "lr": 3e-3, "batch_size": 8, "dropout": 0.1}
    return Params.model_validate(settings | changes)


def test_it_learns_what_can_be_learnt() -> None:
    result = train_fold(a_fold(), some_params(), a_task(epochs=4))
    assert result.history[-1]["auroc"] > 0.95
    assert result.probs.shape == (16, 2)
    np.testing.assert_allclose(result.probs.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"augment": {"rotation": 30, "flip_horizontal": 0.5, "noise": 0.5}},
        {"mixup": 0.4, "cutmix": 0.4, "batch_size": 5},
        {"balance": "sampler", "ema": 0.9, "clip_norm": 1.0},
    ],
    ids=["plain", "augmented", "mixed", "sampled"],
)
def test_the_same_seed_gives_the_same_result(changes: dict[str, Any]) -> None:
    first, second = (
        train_fold(a_fold(), some_params(**changes), a_task(epochs=2)) for _ in range(2)
    )
    np.testing.assert_array_equal(first.probs, second.probs)
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


def test_another_seed_gives_another_result() -> None:
    first, second = (
        train_fold(a_fold(), some_params(), a_task(epochs=1, seed=seed)) for seed in (0, 1)
    )
    assert not np.array_equal(first.probs, second.probs)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam", "schedule": "plateau"},
        {"optimizer": "sgd", "schedule": "constant", "lr": 0.05},
        {"loss": "focal", "label_smoothing": 0.1, "balance": "class_weights"},
        {"loss": "bce", "warmup_epochs": 0.5},
        {"backbone": "cnn_batchnorm", "grayscale": True, "hidden": 8},
        {"backbone": "mobilenetv2_035", "unfreeze": 0, "image_size": SIZE},
        {"backbone": "mobilenetv2_035", "unfreeze": 0.3, "batch_size": 31},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_every_way_of_training_gives_probabilities(changes: dict[str, Any]) -> None:
    result = train_fold(a_fold(), some_params(**changes), a_task(epochs=1))
    assert np.isfinite(result.probs).all()
    assert np.isfinite(result.value)


def test_a_frozen_trunk_does_not_move() -> None:
    params = some_params(backbone="mobilenetv2_035", unfreeze=0)
    states = [train_fold(a_fold(), params, a_task(epochs=e)).state for e in (1, 2)]
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]) == name.startswith("trunk"), name


def test_each_epoch_is_reported_with_its_operating_point() -> None:
    epochs: list[Epoch] = []
    train_fold(a_fold(), some_params(), a_task(), report=epochs.append)
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert [epoch.last for epoch in epochs] == [False, False, True]
    assert epochs[0].improved
    assert {"threshold", "sensitivity_at_threshold", "train_loss", "lr"} <= set(epochs[0].metrics)
    assert epochs[-1].best_value == min(epoch.value for epoch in epochs)


def test_the_best_epoch_is_kept_not_the_last() -> None:
    fold = a_fold()
    # The more it learns, the worse it does on images whose labels are the wrong way round.
    wrong = dataclasses.replace(fold, val_labels=1 - fold.val_labels)
    epochs: list[Epoch] = []
    result = train_fold(wrong, some_params(lr=1e-4), a_task(epochs=4), report=epochs.append)
    best = min(epochs, key=lambda epoch: epoch.value)
    assert result.epoch == best.number < 4
    np.testing.assert_array_equal(result.probs, best.probs)


def test_a_metric_that_should_be_high_is_maximised() -> None:
    epochs: list[Epoch] = []
    task = a_task(objective="auroc", epochs=4)
    result = train_fold(a_fold(seed=3), some_params(lr=1e-4), task, report=epochs.append)
    assert result.value == max(epoch.value for epoch in epochs)


def test_patience_ends_a_trial_early() -> None:
    epochs: list[Epoch] = []
    task = a_task(objective="auroc", epochs=30, patience=2)
    result = train_fold(a_fold(), some_params(), task, report=epochs.append)
    assert epochs[-1].last
    assert epochs[-1].number == result.epoch + 2 < 30


def test_a_loss_that_is_not_a_number_names_its_epoch() -> None:
    params = some_params(lr=1.0, optimizer="sgd", schedule="constant", backbone="cnn_batchnorm")
    with pytest.raises(TrainingError, match=r"is (nan|inf) in epoch \d+; lower lr"):
        train_fold(a_fold(), params.model_copy(update={"lr": 1e30}), a_task(epochs=3))


def test_an_objective_that_is_undefined_ends_the_trial() -> None:
    fold = a_fold()
    one_class = dataclasses.replace(fold, val_labels=np.zeros(16, np.int64))
    with pytest.raises(TrainingError, match="auroc is nan in epoch 1"):
        train_fold(one_class, some_params(), a_task(objective="auroc"))


def test_more_than_two_classes() -> None:
    fold = a_fold()
    labels = np.arange(48) % 3
    three = dataclasses.replace(fold, train_labels=labels[:32], val_labels=labels[32:])
    result = train_fold(three, some_params(), a_task(n_classes=3, positive=None, epochs=1))
    assert result.probs.shape == (16, 3)
    assert "threshold" not in result.history[0]


def a_small_gpu(monkeypatch: pytest.MonkeyPatch, room: int) -> list[int]:
    """From now on a classifier takes at most so many images a pass; the sizes that it took."""
    taken: list[int] = []
    whole = Classifier.classify

    def classify(self: Classifier, normalised: Tensor) -> Tensor:
        if len(normalised) > room:
            raise torch.OutOfMemoryError("no room")
        if self.training:
            taken.append(len(normalised))
        return whole(self, normalised)

    monkeypatch.setattr(Classifier, "classify", classify)
    return taken


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"balance": "class_weights"},
        {"balance": "class_weights", "mixup": 0.4, "cutmix": 0.4, "label_smoothing": 0.1},
        {"loss": "focal", "balance": "sampler", "ema": 0.5, "clip_norm": 0.5},
    ],
    ids=["plain", "weighted", "mixed", "clipped"],
)
def test_micro_batches_add_up_to_the_whole_batch(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fold = a_fold()
    rare = dataclasses.replace(fold, train_labels=(np.arange(32) % 5 == 0).astype(np.int64))
    settings = {"optimizer": "sgd", "lr": 0.05, "batch_size": 11, "dropout": 0} | changes
    params, task = some_params(**settings), a_task(fixed_epochs=2)
    whole = train_fold(rare, params, task)
    taken = a_small_gpu(monkeypatch, 3)
    cut = train_fold(rare, params, task)
    for name, value in whole.state.items():
        torch.testing.assert_close(cut.state[name], value, rtol=0, atol=1e-6, msg=name)
    np.testing.assert_allclose(cut.probs, whole.probs, atol=1e-6)
    assert cut.history[0]["train_loss"] == pytest.approx(whole.history[0]["train_loss"])
    assert max(taken) <= 3 < params.batch_size
    assert len(set(taken)) > 1  # uneven ones among them


def test_a_batch_that_fails_halfway_is_done_again_from_scratch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    params = some_params(optimizer="sgd", lr=0.05, batch_size=32, dropout=0, mixup=0.4)
    whole = train_fold(a_fold(), params, a_task(epochs=1))
    full = iter([True, False, True])  # the batch of 32, then the second of its halves
    classify = Classifier.classify

    def crowded(self: Classifier, normalised: Tensor) -> Tensor:
        if next(full, False):
            raise torch.OutOfMemoryError("no room")
        return classify(self, normalised)

    monkeypatch.setattr(Classifier, "classify", crowded)
    cut = train_fold(a_fold(), params, a_task(epochs=1))
    assert cut.history[0]["micro_batch"] == 8
    np.testing.assert_allclose(cut.probs, whole.probs, atol=1e-6)


def test_a_smaller_micro_batch_stays_and_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[Epoch] = []
    params = some_params(batch_size=16)
    train_fold(a_fold(), params, a_task(epochs=1), report=epochs.append)
    assert "micro_batch" not in epochs[0].metrics
    taken = a_small_gpu(monkeypatch, 5)
    result = train_fold(a_fold(), params, a_task(epochs=2))
    assert [metrics["micro_batch"] for metrics in result.history] == [4.0, 4.0]
    assert taken == [4] * 16


def test_one_image_that_does_not_fit_ends_the_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    a_small_gpu(monkeypatch, 0)
    with pytest.raises(TrainingError, match=r"one image of 16 pixels does not fit .* lower image_"):
        train_fold(a_fold(), some_params(), a_task())


def test_fixed_epochs_follow_the_whole_schedule_and_end_with_the_last() -> None:
    fold = a_fold()
    # The more it learns, the worse it does: the first epoch is the best.
    wrong = dataclasses.replace(fold, val_labels=1 - fold.val_labels)
    whole: list[Epoch] = []
    fixed: list[Epoch] = []
    task = a_task(epochs=4, patience=3)
    train_fold(wrong, some_params(lr=1e-4), task, report=whole.append)
    task = dataclasses.replace(task, patience=1, fixed_epochs=3)
    result = train_fold(wrong, some_params(lr=1e-4), task, report=fixed.append)
    assert [epoch.last for epoch in fixed] == [False, False, True]
    assert all(epoch.improved for epoch in fixed)
    assert [e.metrics["lr"] for e in fixed] == [e.metrics["lr"] for e in whole[:3]]
    assert result.epoch == 3
    assert result.value == fixed[-1].value == fixed[-1].best_value > fixed[0].value
    np.testing.assert_array_equal(result.probs, whole[2].probs)


def test_costs_are_told_before_the_first_epoch_if_asked() -> None:
    told: list[str] = []
    for asked in (False, True):
        train_fold(
            a_fold(),
            some_params(),
            a_task(epochs=1, measure_costs=asked),
            report=lambda epoch: told.append(f"epoch {epoch.number}"),
            begun=lambda costs: told.append(" ".join(costs)),
        )
    assert told == ["epoch 1", "params_m latency_ms", "epoch 1"]


def test_measuring_costs_changes_no_result() -> None:
    params = some_params(dropout=0.4)
    first, second = (
        train_fold(a_fold(), params, a_task(epochs=1, measure_costs=asked))
        for asked in (False, True)
    )
    np.testing.assert_array_equal(first.probs, second.probs)
