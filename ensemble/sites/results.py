"""What leaving one site out at a time finds, as it lies in sites.json and sites/<value>.json."""

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from ensemble.calibration.calibrators import Calibrator
from ensemble.decision.points import OperatingPoint
from ensemble.evaluation.results import Estimate, Estimates
from search.params import Config

Held = Literal["yes", "no", "too few"]
LESS = frozenset({"nll", "brier", "ece"})  # less is better
FAR_BELOW = 0.1  # below the target: an interval that reaches there cannot tell


class Side(Config):
    """One set of images, and what the classifier without the site does to it.

    Intervals are the grouped bootstrap's; those of sensitivity and specificity are
    Clopper-Pearson's, widened where images are linked.
    """

    n: int
    n_groups: int = Field(description="groups of linked images, which the bootstrap draws")
    n_positive: int | None = None
    prevalence: float | None = Field(None, description="share of the positive class")
    metrics: Estimates


class SiteResult(Config):
    """One site, left out."""

    site: str
    digest: str = Field(description="of what it was made from: params, images, their division")
    n_trained: int = Field(description="images of the others that trained")
    n_dropped: int = Field(description="images of the others that are linked to the site's")
    calibrator: Calibrator
    point: OperatingPoint | None = Field(description="chosen on the others' held-back part")
    away: Side = Field(description="the left-out site")
    home: Side = Field(description="the others' held-back part, cross-fitted; see judging.py")
    difference: Estimates = Field(description="away minus home")
    held: Held | None = Field(None, description="whether the point's rate held at the site")
    seconds: float


class Worst(Config):
    """The site where a metric is worst."""

    site: str
    estimate: Estimate


class SitesResult(Config):
    """Every site of one column."""

    name: str = Field(description="of the experiment")
    column: str
    trial: int
    backbone: str
    classes: list[str]
    positive: str | None
    promise: str | None = Field(None, description="what the point was asked for, in words")
    min_cases: int
    n_unknown: int = Field(description="images of no known site, never left out")
    not_left_out: dict[str, str] = Field(description="site: why it is not in the table")
    sites: list[SiteResult]
    mean: Estimates = Field(description="over the sites, each counting once")
    worst: dict[str, Worst]

    @property
    def held(self) -> dict[Held, int]:
        """How many sites kept the point's rate, by verdict."""
        verdicts: tuple[Held, ...] = ("yes", "no", "too few")
        return {each: sum(s.held == each for s in self.sites) for each in verdicts}


def promised(point: OperatingPoint) -> tuple[str, float] | None:
    """The metric that a point was asked to keep, and its rate; None where it was asked for none."""
    if point.aim is None or point.kind == "cost_ratio":
        return None
    if point.kind == "specificity":
        return "specificity", point.aim
    return "sensitivity", 1 - point.aim if point.kind == "false_negative_rate" else point.aim


def verdict(rate: Estimate, target: float) -> Held:
    """Whether a rate kept its target.

    "no" where the whole interval lies below it. "yes" where the interval reaches it and begins no
    more than 0.1 below. Between the two there are too few cases to tell: the interval holds both
    the target and a rate that nobody would have agreed to.
    """
    if rate.low is None or rate.high is None:
        return "too few"
    if rate.high < target:
        return "no"
    return "yes" if rate.low >= target - FAR_BELOW else "too few"


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a minus b of independent images, with an interval made of theirs.

    Source: Zou & Donner, "Construction of confidence limits about effect measures", Statistics in
    Medicine 2008; of two proportions it is method 10 of Newcombe, Statistics in Medicine 1998.
    """
    return _combined([(1.0, a), (-1.0, b)])


def mean(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent numbers, each counting once; the interval as in `difference`.

    It is about these very sites. What another site would see varies more.
    """
    return _combined([(1 / len(estimates), each) for each in estimates])


def summary(sites: Sequence[SiteResult]) -> tuple[Estimates, dict[str, Worst]]:
    """Mean and worst site of each metric; sites where it is undefined are left out of it."""
    means: Estimates = {}
    worst: dict[str, Worst] = {}
    for name in dict.fromkeys(name for s in sites for name in s.away.metrics):
        known = [
            (s.site, s.away.metrics[name])
            for s in sites
            if name in s.away.metrics and s.away.metrics[name].value is not None
        ]
        if not known:
            continue
        means[name] = mean([each for _, each in known])
        sign = -1 if name in LESS else 1
        site, each = min(known, key=lambda pair: sign * (pair[1].value or 0.0))
        worst[name] = Worst(site=site, estimate=each)
    return means, worst


def _combined(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """A weighted sum of independent estimates; no interval where a part has none."""
    value, below, above = 0.0, 0.0, 0.0
    for weight, each in parts:
        if each.value is None:
            return Estimate(value=None)
        value += weight * each.value
        if each.low is None or each.high is None:
            below = above = math.inf
            continue
        ends = sorted((weight * each.low, weight * each.high))
        below += (weight * each.value - ends[0]) ** 2
        above += (ends[1] - weight * each.value) ** 2
    if math.isinf(below):
        return Estimate(value=value)
    return Estimate(value=value, low=value - math.sqrt(below), high=value + math.sqrt(above))
