"""The refer band: two thresholds, searched for all trade-offs at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from pydantic import Field

from ensemble.decision.points import ReferConfig
from search.params import Config, Share
from search.training.thresholds import ranking

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_Band = tuple[int, int]  # indices of the cuts that are its lower and upper threshold

MOST_OPTIONS = 200
ROUNDING = 1e-9  # whole images are compared: 0.05 * 20 may come out just below 1


class BandOption(Config):
    """A refer band, and what it does to the cases it is from."""

    lower: Share = Field(description="referred from here")
    upper: Share = Field(description="positive from here; equal to lower: nothing is referred")
    sensitivity: Share = Field(description="share of positives not called negative")
    specificity: Share = Field(description="share of negatives not called positive")
    referred: Share = Field(description="share of all cases in [lower, upper)")


@dataclass(frozen=True)
class _Cuts:
    """All thresholds that decide differently on some case, upwards: (n_cuts,)."""

    threshold: Floats
    positives: Ints  # that lie below it
    negatives: Ints
    n_positive: int
    n_negative: int

    def band(self, missed: float, referred: float) -> _Band:
        """The cuts of the band with most specificity within these shares, each in [0, 1].

        The lower one is as high as the misses allow and the upper one as high as the share
        referred allows; then both come down as far as no negative changes sides.
        """
        below = self.positives + self.negatives
        lower = _last(self.positives, missed * self.n_positive)
        upper = _last(below, below[lower] + referred * (self.n_positive + self.n_negative))
        upper = int(np.searchsorted(self.negatives, self.negatives[upper]))
        return min(lower, upper), upper

    def option(self, lower: int, upper: int) -> BandOption:
        between = self.positives[upper] + self.negatives[upper]
        between -= self.positives[lower] + self.negatives[lower]
        return BandOption(
            lower=float(self.threshold[lower]),
            upper=float(self.threshold[upper]),
            sensitivity=float((self.n_positive - self.positives[lower]) / self.n_positive),
            specificity=float(self.negatives[upper] / self.n_negative),
            referred=float(between / (self.n_positive + self.n_negative)),
        )


def refer_front(
    score: Floats,
    is_positive: Bools,
    *,
    trials: int = 400,
    seed: int = 0,
    asked: Sequence[ReferConfig] = (),
) -> list[BandOption]:
    """Search refer bands that nothing beats in sensitivity, specificity and share referred.

    A multi-objective study over the share of positives given up and the share of cases referred,
    from which the thresholds follow by rank. What `asked` names is tried first: those bands are
    the best of all, and the search draws the front around them.

    Args:
        score: probability of the positive class, (n_images,), in [0, 1].
        is_positive: (n_images,); some of either.
        trials: bands that are tried.
        asked: configs whose best band must be on the front.

    Returns:
        At most 200 options, by share referred.

    Source: Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002.
    """
    if is_positive.all() or not is_positive.any():
        raise ValueError("a refer band needs positives and negatives")
    cuts = _cuts_of(score, is_positive)

    def objective(trial: optuna.Trial) -> tuple[float, float, float]:
        shares = (trial.suggest_float("missed", 0, 1), trial.suggest_float("referred", 0, 1))
        option = cuts.option(*_band_of(cuts, *shares))
        return option.sensitivity, option.specificity, option.referred

    with _quiet():
        sampler = optuna.samplers.NSGAIISampler(seed=seed)
        study = optuna.create_study(
            directions=["maximize", "maximize", "minimize"], sampler=sampler
        )
        for config in asked:
            study.enqueue_trial(
                {"missed": (1 - config.sensitivity) ** 0.5, "referred": config.share**0.5}
            )
        study.optimize(objective, n_trials=max(trials, len(asked)))
    best = {trial.number: _band_of(cuts, **trial.params) for trial in study.best_trials}
    wanted = {band for number, band in best.items() if number < len(asked)}
    options = [cuts.option(*band) for band in _thinned(cuts, set(best.values()), wanted)]
    return sorted(options, key=lambda option: (option.referred, -option.sensitivity))


def choose_band(front: Sequence[BandOption], config: ReferConfig) -> BandOption:
    """The option with most specificity among those that do as asked, or else the nearest one.

    The nearest lacks the least sensitivity and share together; `meets` tells which it is.

    Raises:
        ValueError: the front is empty.
    """
    if not front:
        raise ValueError("the front has no option")
    feasible = [option for option in front if meets(option, config)]
    if feasible:
        return max(feasible, key=lambda option: (option.specificity, -option.referred))
    return min(front, key=lambda option: (_shortfall(option, config), -option.specificity))


def meets(option: BandOption, config: ReferConfig) -> bool:
    """Whether a band has the sensitivity, and refers no more, than is asked for."""
    return _shortfall(option, config) <= ROUNDING


def _shortfall(option: BandOption, config: ReferConfig) -> float:
    lacking = max(config.sensitivity - option.sensitivity, 0)
    return lacking + max(option.referred - config.share, 0)


def _band_of(cuts: _Cuts, missed: float, referred: float) -> _Band:
    # Squared: a band of use misses few and refers few, so most trials should.
    return cuts.band(missed**2, referred**2)


def _thinned(cuts: _Cuts, found: set[_Band], wanted: set[_Band]) -> list[_Band]:
    """All bands that are wanted, and as many others as there is room for, evenly by referral."""
    others = sorted(found - wanted, key=lambda band: (cuts.option(*band).referred, band))
    room = MOST_OPTIONS - len(wanted)
    if len(others) > room:
        others = [others[i] for i in np.linspace(0, len(others) - 1, room).astype(int)]
    return [*wanted, *others]


def _cuts_of(score: Floats, is_positive: Bools) -> _Cuts:
    levels, tp, fp = ranking(score, is_positive)
    if levels[0] < 1:  # the cut above all; a score of 1 is never called negative
        levels, tp, fp = np.append(1.0, levels), np.append(0, tp), np.append(0, fp)
    upwards = levels[::-1]
    below = np.append(0.0, upwards[:-1])
    middle = (upwards + below) / 2
    threshold = np.where(middle > below, middle, upwards)
    n_positive, n_negative = int(tp[-1]), int(fp[-1])
    positives, negatives = n_positive - tp[::-1], n_negative - fp[::-1]
    return _Cuts(threshold, positives, negatives, n_positive, n_negative)


def _last(counts: Ints, bound: float) -> int:
    """Index of the last of ascending counts that is no more than the bound."""
    return int(np.searchsorted(counts, bound + ROUNDING, side="right")) - 1


@contextmanager
def _quiet() -> Iterator[None]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
