"""The space samples what its YAML allows, and nothing else."""

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search.params import Params
from search.space import Space, flatten, unflatten

SPACE = Space.model_validate(
    {
        "backbone": {"choice": ["cnn", "mobilenetv2_035", "vit_tiny_patch16_224"]},
        "lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "batch_size": {"low": 8, "high": 64, "log": True},
        "unfreeze": {"choice": [0, 0.5, 1], "when": {"backbone": ["mobile*", "vit_*"]}},
        "augment.rotation": {"low": 0, "high": 90},
        "image_size": 64,
    }
)


@given(st.integers(0, 1000))
def test_a_draw_obeys_every_rule(seed: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    params = SPACE.sample(study.ask())
    assert params.backbone in ("cnn", "mobilenetv2_035", "vit_tiny_patch16_224")
    assert 1e-4 <= params.lr <= 1e-2
    assert 8 <= params.batch_size <= 64
    assert isinstance(params.batch_size, int)
    assert params.image_size == 64
    assert 0 <= params.augment.rotation <= 90


def test_a_condition_that_does_not_hold_leaves_the_default() -> None:
    trial = optuna.trial.FixedTrial(
        {"backbone": "cnn", "lr": 1e-3, "batch_size": 16, "augment.rotation": 10}
    )
    assert SPACE.sample(trial).unfreeze == Params().unfreeze
    assert "unfreeze" not in trial.params


def test_a_name_pattern_opens_a_condition() -> None:
    trial = optuna.trial.FixedTrial(
        {
            "backbone": "vit_tiny_patch16_224",
            "lr": 1e-3,
            "batch_size": 16,
            "unfreeze": 0.5,
            "augment.rotation": 10,
        }
    )
    assert SPACE.sample(trial).unfreeze == 0.5


def test_only_values_that_the_space_could_draw_are_inside() -> None:
    params = Params(backbone="vgg16", lr=1e-3, batch_size=128)
    assert SPACE.inside(params) == {"lr": 1e-3, "augment.rotation": 0}


def test_a_recipe_counts_as_a_draw_where_it_lies_inside() -> None:
    study = optuna.create_study()
    params = Params(backbone="mobilenetv2_035", unfreeze=0, lr=2e-3, batch_size=128)
    study.enqueue_trial(SPACE.inside(params))
    trial = study.ask()
    SPACE.register(trial, params)
    assert trial.params == {
        "backbone": "mobilenetv2_035",
        "lr": 2e-3,
        "unfreeze": 0,
        "augment.rotation": 0,
    }


def test_flat_names_round_trip() -> None:
    params = Params.model_validate({"lr": 0.5, "augment": {"rotation": 3}})
    assert unflatten(flatten(params)) == params


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"lr": {"low": 0, "high": 1, "log": True}}, "a log range needs low > 0"),
        ({"loss": {"choice": ["cross_entropy", "hinge"]}}, "loss cannot be 'hinge'"),
        ({"augment.rotate": 3}, "'augment.rotate' is not a param"),
        (
            {"dropout": {"low": 0.0, "high": 0.5, "when": {"backbone": ["cnn"]}}},
            "dropout depends on 'backbone', which is not defined above it",
        ),
        ({"lr": {"choice": []}}, "at least 1 item"),
    ],
)
def test_an_impossible_rule_is_refused(space: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Space.model_validate(space)


def test_corners_hold_every_backbone_and_loss_as_they_would_be_drawn() -> None:
    space = Space.model_validate(
        {
            "backbone": {"choice": ["cnn", "vgg16"]},
            "weights": {"choice": ["hub"], "when": {"backbone": ["vgg16"]}},
            "loss": {"choice": ["bce", "focal"]},
            "lr": {"low": 1e-4, "high": 1e-2},
        }
    )
    found = {(p.backbone, p.weights, p.loss) for p in space.corners()}
    assert found == {("cnn", "none", "bce"), ("vgg16", "hub", "bce"), ("cnn", "none", "focal")}
