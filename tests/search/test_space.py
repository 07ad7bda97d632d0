"""The space samples what its YAML allows, and nothing else."""

import optuna
import pytest
from hypothesis import given, settings
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


@settings(deadline=None)
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
        ({"unfreeze": {"choice": [0, 0.5, 0.0]}}, r"unfreeze\n.*choice names 0.0 twice"),
        ({"lr": {"choice": ["1e-3", 0.001]}}, "choice names 0.001 twice"),
        ({"hidden": {"low": 0.0, "high": 512.0}}, "hidden takes whole numbers; give such bounds"),
        ({"grayscale": {"low": 0.0, "high": 1.0}}, "grayscale takes whole numbers"),
        ({"clip_norm": {"low": 0, "high": float("inf")}}, "should be a finite number"),
        ({"lr": [1e-4, 1e-3]}, "give one value, a choice of several, or low and high"),
        ({"lr": None}, "give one value, a choice of several, or low and high"),
    ],
)
def test_an_impossible_rule_is_refused(space: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Space.model_validate(space)


@pytest.mark.parametrize(
    ("backbone", "allowed", "can"),
    [
        ({"choice": ["cnn", "resnet18"]}, ["vit_*", "vgg16"], "cnn, resnet18"),
        ("resnet18", ["vit_*"], "resnet18"),
        ({"choice": ["cnn", "resnet18"]}, [], "cnn, resnet18"),
        ({"choice": ["cnn", "resnet18"]}, [18, True], "cnn, resnet18"),
    ],
)
def test_a_condition_that_never_holds_is_refused(
    backbone: object, allowed: list[object], can: str
) -> None:
    rule = {"choice": [0, 64], "when": {"backbone": allowed}}
    with pytest.raises(ValidationError) as caught:
        Space.model_validate({"backbone": backbone, "hidden": rule})
    problem = caught.value.errors()[0]
    assert problem["loc"] == ("hidden",)
    assert problem["msg"].endswith(
        f"when backbone is one of {allowed}, but backbone can only be {can}"
    )


@pytest.mark.parametrize(
    ("bounds", "value", "possible"),
    [
        ((0.0, 0.5), 0.5, True),
        ((0.0, 0.5), 0.6, False),
        ((0.0, 0.5), "0.*", False),
        ((0.0, 0.5), "1e-3", True),
        ((0, 1), 1.0, True),
        ((0, 1), 0.5, False),
    ],
)
def test_a_condition_on_a_range_needs_a_number_that_it_can_draw(
    bounds: tuple[float, float], value: object, possible: bool
) -> None:
    document = {
        "unfreeze": {"low": bounds[0], "high": bounds[1]},
        "hidden": {"choice": [0, 64], "when": {"unfreeze": [value]}},
    }
    if possible:
        Space.model_validate(document)
    else:
        with pytest.raises(ValidationError, match=r"but unfreeze can only be 0 to (0\.5|1) "):
            Space.model_validate(document)


def test_a_condition_at_odds_with_that_of_what_it_depends_on_is_refused() -> None:
    document = {
        "backbone": {"choice": ["cnn", "resnet18"]},
        "unfreeze": {"choice": [0, 1], "when": {"backbone": ["res*"]}},
        "hidden": {"choice": [0, 64], "when": {"unfreeze": [0], "backbone": ["cnn"]}},
    }
    message = r"it never applies; of backbone, hidden needs \['cnn'\], unfreeze needs \['res\*'\]"
    with pytest.raises(ValidationError, match=message):
        Space.model_validate(document)


def test_two_conditions_that_never_hold_at_once_are_refused_from_afar() -> None:
    document = {
        "backbone": {"choice": ["cnn", "resnet18", "vgg16"]},
        "unfreeze": {"choice": [0, 1], "when": {"backbone": ["res*", "vgg*"]}},
        "dropout": {"choice": [0.1], "when": {"backbone": ["cnn", "vgg*"]}},
        "hidden": {"choice": [0, 64], "when": {"unfreeze": [0]}},
        "clip_norm": {"choice": [1, 2], "when": {"hidden": [64], "dropout": [0.1]}},
    }
    Space.model_validate(document)
    document["unfreeze"] = {"choice": [0, 1], "when": {"backbone": ["res*"]}}
    with pytest.raises(ValidationError, match=r"clip_norm\n.*it never applies; of backbone, unfr"):
        Space.model_validate(document)


def test_a_condition_opens_where_it_can() -> None:
    space = Space.model_validate(
        {
            "colour_constancy": True,
            "hidden": {"low": 64, "high": 64, "when": {"colour_constancy": [True]}},
            "dropout": {"low": 0.25, "high": 0.25, "when": {"hidden": [64, 128]}},
        }
    )
    params = space.sample(optuna.create_study().ask())
    assert (params.colour_constancy, params.hidden, params.dropout) == (True, 64, 0.25)


def test_a_rule_may_be_one_value_of_any_kind() -> None:
    document = {"keep_statistics": True, "backbone": "cnn", "hidden": 8, "lr": "1e-4"}
    params = Space.model_validate(document).sample(optuna.trial.FixedTrial({}))
    assert (params.keep_statistics, params.backbone, params.hidden) == (True, "cnn", 8)
    assert params.lr == 1e-4


def test_an_exponent_without_a_point_is_a_number_among_choices() -> None:
    space = Space.model_validate({"lr": {"choice": ["1e-4", 1e-3]}})
    assert space.inside(Params(lr=1e-4)) == {"lr": 1e-4}


def test_whole_numbers_are_drawn_on_a_log_scale() -> None:
    space = Space.model_validate({"batch_size": {"low": 2, "high": 4096, "log": True}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    draws = [space.sample(study.ask()).batch_size for _ in range(200)]
    assert 40 < sorted(draws)[100] < 200  # around the root of 2 * 4096


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
