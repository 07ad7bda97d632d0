"""A classifier's size and speed are its own, and a bound is broken by what exceeds it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from search.config import WeightsConfig
from search.params import Params
from search.training import costs
from search.training.backbones import build_classifier, freeze
from search.training.costs import measure_costs, violations


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def some_params(**changes: Any) -> Params:
    return Params.model_validate({"backbone": "cnn", "image_size": 16, **changes})


def test_parameters_are_counted_in_millions_frozen_or_not() -> None:
    params = some_params(hidden=10)
    classifier = build_classifier(params, 3, WeightsConfig())
    freeze(classifier, 0)
    convolutions = (3 * 9 + 1) * 32 + (32 * 9 + 1) * 64 + (64 * 9 + 1) * 128
    head = (128 * 4 + 1) * 10 + (10 + 1) * 3
    assert measure_costs(classifier, params)["params_m"] * 1e6 == convolutions + head


def test_latency_is_the_median_of_passes_after_the_warm_ups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readings = iter([0.0, 0.1, 1.0, 1.02, 2.0, 2.03, 3.0, 3.04, 4.0, 4.9])
    monkeypatch.setattr("search.training.costs.perf_counter", lambda: next(readings))
    measured = measure_costs(build_classifier(some_params(), 2, WeightsConfig()), some_params())
    assert measured["latency_ms"] == pytest.approx(40)


def test_it_passes_one_image_on_one_thread_in_evaluation_mode() -> None:
    seen: list[tuple[int, bool, torch.Size]] = []
    classifier = build_classifier(some_params(), 2, WeightsConfig())
    classifier.register_forward_pre_hook(
        lambda network, inputs: seen.append(
            (torch.get_num_threads(), network.training, inputs[0].shape)
        )
    )
    torch.set_num_threads(2)
    measure_costs(classifier, some_params())
    assert set(seen) == {(1, False, torch.Size([1, 16, 16, 3]))}
    assert len(seen) >= costs.WARM_UPS + costs.PASSES


@pytest.mark.parametrize("training", [True, False])
def test_threads_mode_and_randomness_are_as_before(training: bool) -> None:
    classifier = build_classifier(some_params(dropout=0.5), 2, WeightsConfig()).train(training)
    torch.set_num_threads(2)
    state = torch.get_rng_state()
    measure_costs(classifier, some_params())
    assert torch.get_num_threads() == 2
    assert classifier.training is training
    assert torch.equal(torch.get_rng_state(), state)


def test_only_what_exceeds_its_bound_is_named() -> None:
    bounds = {"params_m": 2.0, "latency_ms": 10.0, "ece": 0.1}
    assert violations(bounds, {"params_m": 3.5, "latency_ms": 10.0, "ece": 0.05}) == {
        "params_m": 1.5
    }
    assert violations({}, {"params_m": 3.5}) == {}


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_value_that_is_not_known_breaks_its_bound(value: float | None) -> None:
    found = violations({"ece": 0.1, "params_m": 5.0}, {"ece": value})
    assert found == {"ece": 0.1, "params_m": 5.0}
    json.dumps(found, allow_nan=False)
