"""A study learns from an earlier one's trials, where its own space could have given them."""

import math
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from search.errors import StudyError
from search.params import Params
from search.space import Space
from search.study.samplers import build_sampler
from search.study.warmstart import WarmStart, warm_start

RULES: dict[str, Any] = {
    "backbone": {"choice": ["cnn", "resnet18"]},
    "lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "batch_size": {"low": 8, "high": 64},
    "unfreeze": {"choice": [0, 0.5, 1], "when": {"backbone": ["resnet*"]}},
    "image_size": 64,
}
SPACE = Space.model_validate(RULES)


def space_with(**rules: object) -> Space:
    return Space.model_validate(RULES | rules)


def a_study(*directions: Literal["minimize", "maximize"]) -> optuna.Study:
    return optuna.create_study(
        directions=directions or ["minimize"], sampler=optuna.samplers.RandomSampler(seed=0)
    )


def draw(study: optuna.Study, space: Space = SPACE, **fixed: object) -> optuna.Trial:
    """Ask for a trial as a search does."""
    study.enqueue_trial(fixed)
    trial = study.ask()
    trial.set_user_attr("params", space.sample(trial).model_dump())
    return trial


def one_trial(space: Space = SPACE, **fixed: object) -> optuna.Study:
    """An earlier study of one complete trial."""
    study = a_study()
    study.tell(draw(study, space, **fixed), 0.5)
    return study


@pytest.fixture(params=["memory", "sqlite"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.Study:
    storage = None if request.param == "memory" else f"sqlite:///{tmp_path / 'new.db'}"
    return optuna.create_study(storage=storage)


def test_complete_and_pruned_trials_come_over_with_all_they_tell(new: optuna.Study) -> None:
    earlier = a_study()
    complete = draw(earlier, backbone="resnet18")
    complete.set_constraint("ece", 0.25)
    complete.report(0.75, 1)
    earlier.tell(complete, 0.5)
    pruned = draw(earlier, backbone="cnn")
    pruned.report(0.9, 1)
    pruned.report(0.8, 2)
    earlier.tell(pruned, state=TrialState.PRUNED)
    earlier.tell(draw(earlier), state=TrialState.FAIL)
    draw(earlier)  # still running

    assert warm_start(new, earlier, SPACE, source="first") == WarmStart(added=2, refused={})
    one, two = new.trials
    for added, theirs in ((one, earlier.trials[0]), (two, earlier.trials[1])):
        assert added.state == theirs.state
        assert added.params == theirs.params
        assert added.distributions == theirs.distributions
        assert added.values == theirs.values
        assert added.intermediate_values == theirs.intermediate_values
        assert added.constraints == theirs.constraints
        assert added.user_attrs == {
            "warm_from": "first",
            "warm_number": theirs.number,
            "params": theirs.user_attrs["params"],
        }
    assert two.intermediate_values == {1: 0.9, 2: 0.8}
    assert one.constraints == {"ece": 0.25}


def test_a_second_call_adds_only_what_is_new(new: optuna.Study) -> None:
    earlier = one_trial()
    warm_start(new, earlier, SPACE, source="first")
    assert warm_start(new, earlier, SPACE, source="first").added == 0
    earlier.tell(draw(earlier), 0.25)
    assert warm_start(new, earlier, SPACE, source="first").added == 1
    assert [trial.user_attrs["warm_number"] for trial in new.trials] == [0, 1]
    assert warm_start(new, earlier, SPACE, source="second").added == 2


def test_warm_trials_and_those_done_again_are_passed_over() -> None:
    first, middle, last = one_trial(), a_study(), a_study()
    warm_start(middle, first, SPACE, source="first")
    done = draw(middle)
    middle.tell(done, 0.5)
    again = draw(middle)
    again.set_user_attr("resume_of", done.number)
    middle.tell(again, 0.25)
    assert warm_start(last, middle, SPACE, source="middle") == WarmStart(1, {})
    assert last.trials[0].user_attrs["warm_number"] == again.number


def test_trials_are_redrawn_from_our_distributions() -> None:
    theirs = space_with(
        backbone={"choice": ["vgg16", "cnn", "resnet18"]},
        lr={"low": 1e-5, "high": 1.0, "log": True},
        image_size={"choice": [64, 128]},
    )
    earlier = one_trial(theirs, backbone="resnet18", lr=1e-3, image_size=64, unfreeze=1)
    new = a_study()
    assert warm_start(new, earlier, SPACE, source="first").added == 1
    (trial,) = new.trials
    assert trial.params.keys() == {"backbone", "lr", "batch_size", "unfreeze"}
    assert {name: trial.distributions[name] for name in SPACE.distributions()} == (
        SPACE.distributions()
    )
    new.tell(draw(new), 0.5)  # Optuna refuses other choices within a study


@pytest.mark.parametrize(
    ("theirs", "drawn", "reason"),
    [
        (
            {"lr": {"low": 1e-4, "high": 1.0, "log": True}},
            {"lr": 0.5},
            "lr = 0.5 lies outside 0.0001 to 0.1",
        ),
        (
            {"backbone": {"choice": ["vgg16", "resnet18"]}},
            {"backbone": "vgg16"},
            "backbone = 'vgg16' lies outside the choices cnn, resnet18",
        ),
        (
            {"lr": {"low": 1e-4, "high": 1e-1}},
            {"lr": 0.01},
            "lr = 0.01 was drawn from a range, here from a range on a log scale",
        ),
        (
            {"lr": {"choice": [0.01]}},
            {},
            "lr = 0.01 was drawn from choices, here from a range on a log scale",
        ),
        ({"image_size": 128}, {}, "image_size = 128, here it is 64"),
        ({"image_size": {"choice": [128]}}, {}, "image_size = 128, here it is 64"),
        ({"ema": 0.9}, {}, "ema = 0.9, here it is 0"),
        (
            {"hidden": {"choice": [0]}},
            {},
            "hidden = 0 was drawn, it is not in this space",
        ),
        (
            {"unfreeze": {"choice": [0.5]}},
            {"backbone": "cnn"},
            "unfreeze = 0.5, here it is 1",
        ),
        (
            {"augment.rotation": {"low": 0.0, "high": 9.0}},
            {"augment.rotation": 2.5},
            "augment.rotation = 2.5 was drawn, it is not in this space",
        ),
    ],
)
def test_a_trial_that_this_space_would_not_give_is_refused_by_name(
    theirs: dict[str, object], drawn: dict[str, object], reason: str
) -> None:
    earlier = one_trial(space_with(**theirs), **drawn)
    new = a_study()
    result = warm_start(new, earlier, SPACE, source="first")
    assert result.added == 0
    assert result.refused[0].removesuffix(".0") == reason
    assert new.trials == []


def test_one_disagreement_does_not_hold_back_the_others() -> None:
    wide = space_with(lr={"low": 1e-4, "high": 1.0, "log": True})
    earlier = a_study()
    for lr in (0.5, 0.01, 0.7):
        earlier.tell(draw(earlier, wide, lr=lr), lr)
    new = a_study()
    result = warm_start(new, earlier, SPACE, source="first")
    assert result.added == 1
    assert result.refused.keys() == {0, 2}
    assert new.trials[0].params["lr"] == 0.01


def test_a_fraction_is_no_draw_of_a_whole_number() -> None:
    ours = space_with(**{"augment.rotation": {"low": 0, "high": 90}})
    new = a_study()
    fractions = one_trial(space_with(**{"augment.rotation": 2.5}))
    assert warm_start(new, fractions, ours, source="a").refused == {
        0: "augment.rotation = 2.5 lies outside the whole numbers 0 to 90"
    }
    assert warm_start(new, one_trial(space_with(**{"augment.rotation": 2})), ours, source="b").added
    assert new.trials[0].params["augment.rotation"] == 2


def test_trials_without_readable_params_are_refused() -> None:
    earlier = a_study()
    for attrs in ({}, {"params": {"colour": "red"}}):
        earlier.add_trial(
            create_trial(
                value=0.5,
                params={"lr": 0.01},
                distributions={"lr": FloatDistribution(1e-4, 1e-1, log=True)},
                user_attrs=attrs,
            )
        )
    result = warm_start(a_study(), earlier, SPACE, source="first")
    assert result.refused == {
        0: "its params are not recorded",
        1: "colour is not a param of this version, or out of range",
    }


def test_several_objectives_come_over_and_other_directions_do_not() -> None:
    earlier, new = a_study("minimize", "maximize"), a_study("minimize", "maximize")
    earlier.tell(draw(earlier), [0.25, 0.75])
    warm_start(new, earlier, SPACE, source="first")
    assert new.trials[0].values == [0.25, 0.75]
    with pytest.raises(
        StudyError,
        match=r"first: its directions are minimize and maximize, this study's maximize and minimi",
    ):
        warm_start(a_study("maximize", "minimize"), earlier, SPACE, source="first")


def test_the_sampler_learns_from_what_was_added() -> None:
    earlier = a_study()
    for _ in range(40):
        trial = draw(earlier)
        params = Params.model_validate(trial.user_attrs["params"])
        bad = params.backbone != "resnet18"
        earlier.tell(trial, bad + abs(math.log10(params.lr) + 3))
    drawn = {}
    for name, sources in {"warm": ["first"], "cold": []}.items():
        new = optuna.create_study(sampler=build_sampler("tpe", SPACE, seed=0))
        for source in sources:
            warm_start(new, earlier, SPACE, source=source)
        drawn[name] = [SPACE.sample(new.ask()) for _ in range(9)]  # none is told
    share = {name: sum(p.backbone == "resnet18" for p in d) / 9 for name, d in drawn.items()}
    distance = {name: sum(abs(math.log10(p.lr) + 3) for p in d) / 9 for name, d in drawn.items()}
    assert share["warm"] > 0.8 > share["cold"]
    assert distance["warm"] < 0.5 < distance["cold"]
