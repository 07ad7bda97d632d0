"""Rates follow their schedule."""

import pytest
import torch
from torch import nn

from search.params import Params
from search.training.optimise import LearningRate, build_optimizer


def rates(params: Params, *, epochs: int, steps: int, nll: float = 1.0) -> list[float]:
    layer = nn.Linear(2, 2)
    optimizer = build_optimizer(layer, params)
    schedule = LearningRate(optimizer, params, epochs=epochs, steps=steps)
    found = []
    for _ in range(epochs):
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            layer(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(nll)
    return found


def test_warm_up_climbs_to_the_rate_and_cosine_falls_to_nothing() -> None:
    found = rates(Params(lr=0.1, warmup_epochs=1), epochs=4, steps=5)
    assert found[:6] == pytest.approx([0.1 * (i + 1) / 6 for i in range(5)] + [0.1])
    assert found[5:] == sorted(found[5:], reverse=True)
    assert found[-1] < 0.002


def test_a_plateau_lowers_the_rate() -> None:
    found = rates(Params(lr=0.1, schedule="plateau"), epochs=5, steps=2)
    assert found[0] == pytest.approx(0.1)
    assert found[-1] == pytest.approx(0.03)


def test_constant_stays() -> None:
    assert set(rates(Params(lr=0.1, schedule="constant"), epochs=3, steps=2)) == {0.1}


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_biases_do_not_decay(name: str) -> None:
    params = Params.model_validate({"optimizer": name, "weight_decay": 0.3})
    groups = build_optimizer(nn.Linear(2, 2), params).param_groups
    assert [(g["params"][0].ndim, g["weight_decay"]) for g in groups] == [(2, 0.3), (1, 0.0)]


def test_frozen_weights_are_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    groups = build_optimizer(layer, Params()).param_groups
    assert [len(g["params"]) for g in groups] == [0, 1]
