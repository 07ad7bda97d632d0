"""Refer bands: what the study finds, against all bands there are."""

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensemble.decision.points import ReferConfig
from ensemble.decision.refer import BandOption, choose_band, meets, refer_front

RNG = np.random.default_rng(3)
SCORE: NDArray[np.float64] = np.round(np.append(RNG.beta(4, 2, 40), RNG.beta(2, 4, 80)), 3).astype(
    np.float64
)
POSITIVE = np.arange(120) < 40


@pytest.fixture(scope="module")
def front() -> list[BandOption]:
    return refer_front(SCORE, POSITIVE, seed=1)


def share_between(score: NDArray[np.float64], lower: float, upper: float) -> float:
    return float(((score >= lower) & (score < upper)).mean())


def best_of_all(config: ReferConfig) -> tuple[float, float, float]:
    """Most specificity, then least referred, then most sensitivity, by trying every band."""
    cuts = np.append(np.unique(SCORE), 1.0)
    bands = [
        (
            float((SCORE[~POSITIVE] < upper).mean()),
            -share_between(SCORE, lower, upper),
            float((SCORE[POSITIVE] >= lower).mean()),
        )
        for lower in cuts
        for upper in cuts[cuts >= lower]
    ]
    return max(b for b in bands if -b[1] <= config.share and b[2] >= config.sensitivity)


def goals_of(option: BandOption) -> tuple[float, float, float]:
    return option.specificity, -option.referred, option.sensitivity


CONFIGS = [
    ReferConfig(share=0.2, sensitivity=0.95),
    ReferConfig(share=0.05, sensitivity=0.9),
    ReferConfig(share=0.5, sensitivity=1),
    ReferConfig(share=0.333, sensitivity=0.85),
    ReferConfig(share=0.01, sensitivity=0.3),
    ReferConfig(share=0.9, sensitivity=0.9),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_search_comes_near_the_best_of_all_bands(
    front: list[BandOption], config: ReferConfig
) -> None:
    chosen = choose_band(front, config)
    assert meets(chosen, config)
    assert best_of_all(config)[0] - 0.08 <= chosen.specificity <= best_of_all(config)[0]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_band_that_is_asked_for_is_the_best_of_all(config: ReferConfig) -> None:
    front = refer_front(SCORE, POSITIVE, trials=30, seed=1, asked=[config])
    assert goals_of(choose_band(front, config)) == pytest.approx(best_of_all(config))


def test_what_is_asked_for_stays_when_the_front_is_thinned() -> None:
    front = refer_front(SCORE, POSITIVE, trials=600, seed=1, asked=CONFIGS)
    assert len(front) <= 200
    for config in CONFIGS:
        assert goals_of(choose_band(front, config)) == pytest.approx(best_of_all(config))


def test_the_front_is_sorted_and_nothing_on_it_is_beaten(front: list[BandOption]) -> None:
    goals = np.array([[o.sensitivity, o.specificity, -o.referred] for o in front])
    assert 20 < len(front) <= 200
    assert (np.diff(-goals[:, 2]) >= 0).all()
    for row in goals:
        beaten = (goals >= row).all(axis=1) & (goals > row).any(axis=1)
        assert not beaten.any()


def test_the_rates_are_those_of_the_thresholds(front: list[BandOption]) -> None:
    for option in front:
        between = share_between(SCORE, option.lower, option.upper)
        assert option.lower <= option.upper
        assert option.referred == pytest.approx(between)
        assert option.sensitivity == pytest.approx((SCORE[POSITIVE] >= option.lower).mean())
        assert option.specificity == pytest.approx((SCORE[~POSITIVE] < option.upper).mean())


def test_a_band_may_reach_above_all_scores() -> None:
    score, is_positive = np.array([0.3, 0.5, 0.8]), np.array([False, True, False])
    config = ReferConfig(share=0.9, sensitivity=1)
    chosen = choose_band(refer_front(score, is_positive, trials=5, asked=[config]), config)
    assert (chosen.lower, chosen.upper) == pytest.approx((0.4, 0.9))
    assert chosen.specificity == 1


def test_no_positive_is_given_up_for_nothing() -> None:
    score, is_positive = np.array([0.1, 0.2, 0.3]), np.array([False, True, True])
    config = ReferConfig(share=0.2, sensitivity=0.1)
    (found,) = refer_front(score, is_positive, trials=1, asked=[config])
    assert (found.lower, found.upper) == pytest.approx((0.15, 0.15))
    assert (found.sensitivity, found.specificity, found.referred) == (1, 1, 0)


def test_the_same_seed_gives_the_same_front_and_leaves_the_log_alone(
    front: list[BandOption],
) -> None:
    before = optuna.logging.get_verbosity()
    again = refer_front(SCORE, POSITIVE, seed=1)
    assert again == front
    assert optuna.logging.get_verbosity() == before


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=2, max_size=30))
def test_few_and_equal_scores_are_no_trouble(cases: list[tuple[int, bool]]) -> None:
    score = np.array([level for level, _ in cases]) / 10
    is_positive = np.array([positive for _, positive in cases])
    is_positive[:2] = [True, False]
    config = ReferConfig(share=0.3, sensitivity=0.9)
    chosen = choose_band(refer_front(score, is_positive, trials=10, asked=[config]), config)
    assert meets(chosen, config)
    assert chosen.specificity == pytest.approx((score[~is_positive] < chosen.upper).mean())


def option(sensitivity: float, specificity: float, referred: float) -> BandOption:
    return BandOption(
        lower=0.2, upper=0.6, sensitivity=sensitivity, specificity=specificity, referred=referred
    )


def test_of_equal_specificity_the_band_that_refers_less_is_chosen() -> None:
    config = ReferConfig(share=0.2, sensitivity=0.9)
    less, more = option(0.91, 0.8, 0.1), option(0.95, 0.8, 0.2)
    assert choose_band([more, less, option(0.5, 0.99, 0.1), option(1, 0.99, 0.5)], config) == less


def test_where_no_band_does_as_asked_the_nearest_is_chosen() -> None:
    config = ReferConfig(share=0.2, sensitivity=0.95)
    near, far = option(0.94, 0.5, 0.2), option(0.6, 0.99, 0.2)
    assert choose_band([far, near], config) == near
    assert not meets(near, config)


def test_an_empty_front_and_a_missing_class_are_refused() -> None:
    with pytest.raises(ValueError, match="no option"):
        choose_band([], ReferConfig())
    with pytest.raises(ValueError, match="positives and negatives"):
        refer_front(SCORE, np.ones(120, np.bool_))
