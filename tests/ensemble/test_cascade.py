"""A cascade leaves early only where the whole ensemble would say the same."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ensemble.calibration.calibrators import Temperature
from ensemble.cascade import Panel, build_cascade, member_order, prefixes, stops
from ensemble.config import CascadeConfig
from ensemble.decision.points import Decision, OperatingPoint
from ensemble.manifest import Cascade, Exit, Stage
from ensemble.pool import pool_probs
from search.config import PolicyConfig
from search.training.thresholds import scan_thresholds
from tests.ensemble.panels import CONFIG, EQUAL, LATENCIES, Floats, ask, panel, point
from tests.points import a_point


def cascade_of(
    whole: Panel, cases: Floats, others: Floats, groups: NDArray[np.int64], **options: Any
) -> Cascade | None:
    """Of cases whose labels do not matter, unless they are given."""
    labels = options.pop("labels", np.zeros(len(groups), np.int64))
    return build_cascade(whole, cases, others, groups, labels=labels, **options)


def test_exits_that_would_break_the_points_own_promise_are_not_taken() -> None:
    # The whole ensemble finds every positive; the first member alone calls one in ten of them
    # negative, and surely: of all images that is few enough to agree.
    rng = np.random.default_rng(6)
    labels = (np.arange(2000) % 10 == 0).astype(np.int64)
    score = np.where(labels == 1, rng.uniform(0.7, 0.9, 2000), rng.uniform(0.1, 0.3, 2000))
    first = np.where((labels == 1) & (np.arange(2000) % 100 == 0), 0.01, score)
    probs = np.stack([np.stack([1 - s, s], axis=1) for s in (first, score, score)])
    others = np.stack([np.stack([1 - score, score], axis=1)] * 3)
    promised = a_point("first", 0.35, certified=True, aim=0.95)
    loose = cascade_of(
        panel([a_point("first", 0.35)]),
        probs,
        others,
        np.arange(2000),
        labels=labels,
        config=CONFIG,
    )
    assert loose is not None
    assert loose.agreements[0].disagreements == 20
    strict = cascade_of(
        panel([promised]), probs, others, np.arange(2000), labels=labels, config=CONFIG
    )
    assert strict is None


class Walked(NamedTuple):
    decisions: list[Decision]
    by_all: list[Decision]


def walk(stages: Sequence[Stage], asked: OperatingPoint, member_probs: Floats) -> Walked:
    """What a service does: image by image, stage by stage. Members in the order a, b, c."""
    after = np.cumsum(member_probs[:, :, 1], axis=0) / np.arange(1, 4)[:, None]
    decisions: list[Decision] = []
    for image in range(member_probs.shape[1]):
        early = (stops(s, asked.name, after[k, image]) for k, s in enumerate(stages))
        found = next((decision for decision in early if decision), None)
        decisions.append(found or asked.decide(after[-1, image]))
    return Walked(decisions, [asked.decide(p) for p in after[-1]])


def disagreement(stages: Sequence[Stage], asked: OperatingPoint, after: Floats) -> float:
    """The same for many images at once; `after` is the probability after each member, (3, n)."""
    whole = after[-1] >= asked.threshold
    decided, on = whole.copy(), np.ones(after.shape[1], np.bool_)
    for k, stage in enumerate(stages):
        (bounds,) = stage.exits
        negative = on & (after[k] < bounds.negative_below)
        positive = on & (after[k] >= bounds.positive_from)
        decided[negative], decided[positive] = False, True
        on &= ~(negative | positive)
    return float((decided != whole).mean())


def test_the_stated_bound_holds_on_fresh_images_as_often_as_it_says() -> None:
    # The threshold is chosen on the very cases that test the exits, as a build does it.
    rng = np.random.default_rng(0)
    fresh = np.cumsum(ask(rng, 20_000)[:, :, 1], axis=0) / np.arange(1, 4)[:, None]
    held, rates, costs = 0, [], []
    for _ in range(250):
        truth = rng.integers(0, 2, 400)
        shown = 4 * (truth - 0.5) + rng.normal(0, 1, 400)
        positive = 1 / (1 + np.exp(-1.5 * (shown + rng.normal(0, 1, (3, 400)))))
        cases = np.stack([1 - positive, positive], axis=2)
        pooled = pool_probs(cases, EQUAL)[:, 1]
        found = scan_thresholds(pooled, truth == 1, PolicyConfig(sensitivity=0.95))
        chosen = point(found.threshold)
        cascade = cascade_of(panel([chosen]), cases, ask(rng, 1000), np.arange(400), config=CONFIG)
        if cascade is None:
            continue
        held += 1
        costs.append(cascade.agreements[0].cost)
        rates.append(disagreement(cascade.stages, chosen, fresh))
    assert held >= 200
    assert max(costs) < 1
    assert np.mean(np.array(rates) <= CONFIG.disagreement) >= CONFIG.confidence


def test_members_that_mostly_agree_save_much_and_say_how_much() -> None:
    rng = np.random.default_rng(1)
    cases, asked = ask(rng, 1000), point()
    cascade = cascade_of(panel([asked]), cases, ask(rng, 2000), np.arange(1000), config=CONFIG)
    assert cascade is not None
    (agreement,) = cascade.agreements
    decisions, by_all = walk(cascade.stages, asked, cases)
    assert agreement.disagreements == sum(a != b for a, b in zip(decisions, by_all, strict=True))
    assert (agreement.n, cascade.confidence) == (1000, 0.95)
    assert agreement.disagreements / 1000 < agreement.at_most <= CONFIG.disagreement
    first, second = (stage.leaving["first"] for stage in cascade.stages)
    assert agreement.cost == pytest.approx(
        (first * 1 + second * 5 + (1 - first - second) * 15) / 15
    )
    assert agreement.cost < 0.5
    assert [stage.members for stage in cascade.stages] == [["a"], ["a", "b"]]


def test_more_permitted_disagreement_costs_less() -> None:
    rng = np.random.default_rng(2)
    cases, others = ask(rng, 2000), ask(rng, 2000)
    costs = []
    for share in (0.005, 0.02, 0.08):
        config = CascadeConfig(disagreement=share)
        cascade = cascade_of(panel([point()]), cases, others, np.arange(2000), config=config)
        assert cascade is not None
        costs.append(cascade.agreements[0].cost)
    assert costs == sorted(costs, reverse=True)
    assert costs[0] - costs[2] > 0.02


def test_members_that_contradict_each_other_at_random_make_no_cascade() -> None:
    # The last one has the weight to outvote the others. Of three equal ones two that agree would
    # settle it, contradiction or not.
    rng, whole = np.random.default_rng(3), panel([point(0.5)])
    weights, latencies = np.array([0.2, 0.2, 0.6]), np.array([1.0, 2.0, 10.0])
    last = Panel(whole.names, weights, latencies, 1, whole.decided, whole.survivors)

    def guess(n: int) -> Floats:
        positive = np.where(rng.random((3, n)) < 0.5, 0.1, 0.9) + rng.uniform(-0.05, 0.05, (3, n))
        return np.stack([1 - positive, positive], axis=2)

    assert cascade_of(last, guess(1000), guess(1000), np.arange(1000), config=CONFIG) is None


def test_proposals_that_agree_are_not_believed_where_held_back_cases_do_not() -> None:
    rng = np.random.default_rng(4)
    cases = ask(rng, 1000, noise=6)
    easy = ask(rng, 1000, noise=0.1)
    assert cascade_of(panel([point()]), easy, easy, np.arange(1000), config=CONFIG) is not None
    assert cascade_of(panel([point()]), cases, easy, np.arange(1000), config=CONFIG) is None


def test_too_few_groups_prove_no_exit() -> None:
    # 182 cases without one disagreement leave an upper bound of 0.0201, 183 one of 0.0200.
    rng = np.random.default_rng(5)
    cases, others = ask(rng, 800, noise=0.01), ask(rng, 2000, noise=0.01)
    few, enough = np.arange(800) % 180, np.arange(800) % 190
    assert cascade_of(panel([point()]), cases, others, few, config=CONFIG) is None
    cascade = cascade_of(panel([point()]), cases, others, enough, config=CONFIG)
    assert cascade is not None
    assert cascade.agreements[0].n == 190


def test_no_bound_crosses_the_points_own_threshold() -> None:
    # All proposals are negative by all members: nothing else would keep the positive exit up.
    rng, asked = np.random.default_rng(13), point(0.99999)
    cases, others = ask(rng, 1000, sharp=2), ask(rng, 2000, sharp=2)
    assert pool_probs(others, EQUAL)[:, 1].max() < 0.99999
    cascade = cascade_of(panel([asked]), cases, others, np.arange(1000), config=CONFIG)
    assert cascade is not None
    assert all(stage.exits[0].positive_from >= 0.99999 for stage in cascade.stages)


def test_equal_scores_leave_together_or_not_at_all() -> None:
    # Of the first member's 0.9, one image in ten is negative by all three: none of them leaves.
    def say(n: int) -> Floats:
        positive = np.full((3, n), 0.05)
        positive[0, ::2] = 0.9
        positive[1:, ::2] = 0.95
        positive[1:, ::20] = 0.05
        return np.stack([1 - positive, positive], axis=2)

    cascade = cascade_of(panel([point()]), say(1000), say(1000), np.arange(1000), config=CONFIG)
    assert cascade is not None
    assert cascade.agreements[0].disagreements == 0
    assert cascade.stages[0].leaving["first"] == 0.5
    assert stops(cascade.stages[0], "first", 0.05) == "negative"
    assert stops(cascade.stages[0], "first", 0.9) is None


def test_after_bounds_that_fail_no_bolder_ones_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = ask(np.random.default_rng(14), 1000)
    fine, bad = [(0.01, 0.99)] * 2, [(0.4, 0.4)] * 2
    found = []
    for proposed in ([fine], [bad, fine]):
        monkeypatch.setattr("ensemble.cascade._proposed", lambda *_, p=proposed: iter(p))
        found.append(cascade_of(panel([point()]), cases, cases, np.arange(1000), config=CONFIG))
    assert found[0] is not None
    assert found[1] is None


def test_only_cases_that_certify_are_tested_on() -> None:
    rng = np.random.default_rng(6)
    cases, others = ask(rng, 600, noise=0.01), ask(rng, 2000, noise=0.01)
    certifies = np.arange(600) % 2 == 0
    cases[:, ~certifies] = np.nan
    cascade = cascade_of(
        panel([point()]), cases, others, np.arange(600), config=CONFIG, certifies=certifies
    )
    assert cascade is not None
    assert cascade.agreements[0].n == 300


def test_nobody_who_is_to_be_referred_leaves_early() -> None:
    rng = np.random.default_rng(7)
    cases, band = ask(rng, 1000), point(0.7, refer_from=0.2)
    config = CascadeConfig(disagreement=0.03)
    cascade = cascade_of(panel([band]), cases, ask(rng, 2000), np.arange(1000), config=config)
    assert cascade is not None
    for stage in cascade.stages:
        (bounds,) = stage.exits
        assert bounds.negative_below <= 0.2
        assert bounds.positive_from >= 0.7
    decisions, by_all = walk(cascade.stages, band, cases)
    referred = [early for early, late in zip(decisions, by_all, strict=True) if late == "refer"]
    assert referred.count("refer") / len(referred) > 0.8
    assert sum(a != b for a, b in zip(decisions, by_all, strict=True)) <= 30


def test_a_point_without_a_gain_has_no_exits_beside_one_that_has_some() -> None:
    rng = np.random.default_rng(8)
    # The second point refers nearly all: nobody is surer than that.
    inside = point(0.999_999, refer_from=1e-9)
    cascade = cascade_of(
        panel([point(), inside]), ask(rng, 1000), ask(rng, 2000), np.arange(1000), config=CONFIG
    )
    assert cascade is not None
    assert [agreement.point for agreement in cascade.agreements] == ["first"]
    assert all([e.point for e in stage.exits] == ["first"] for stage in cascade.stages)
    assert stops(cascade.stages[0], "band", 0.0) is None


def test_nothing_is_built_where_there_is_nothing_to_leave_out() -> None:
    rng = np.random.default_rng(9)
    cases, groups = ask(rng, 300), np.arange(300)
    whole = panel([point()])
    single = Panel(["a"], np.ones(1), np.ones(1), 1, whole.decided, [])
    classless = Panel(whole.names, EQUAL, LATENCIES, None, whole.decided, whole.survivors)
    assert cascade_of(single, cases[:1], cases[:1], groups, config=CONFIG) is None
    assert cascade_of(classless, cases, cases, groups, config=CONFIG) is None
    assert cascade_of(panel([]), cases, cases, groups, config=CONFIG) is None


def test_a_first_member_that_costs_nearly_all_is_no_gain() -> None:
    rng = np.random.default_rng(10)
    groups = np.arange(1000)
    whole = panel([point()], latencies=np.array([97.0, 1.5, 1.5]))
    heavy = Panel(
        whole.names,
        np.array([0.98, 0.01, 0.01]),
        whole.latencies,
        1,
        whole.decided,
        whole.survivors,
    )
    cases = ask(rng, 1000)
    assert cascade_of(heavy, cases, ask(rng, 2000), groups, config=CONFIG) is None


def test_a_prefix_is_calibrated_as_its_survivors_are() -> None:
    rng = np.random.default_rng(11)
    plain = panel([point()])
    cooler = [
        s.model_copy(update={"calibrator": Temperature(temperature=3.0)}) for s in plain.survivors
    ]
    cooled = Panel(plain.names, EQUAL, LATENCIES, 1, plain.decided, cooler)
    cases, others, groups = ask(rng, 1000), ask(rng, 2000), np.arange(1000)
    first, second = (cascade_of(p, cases, others, groups, config=CONFIG) for p in (plain, cooled))
    assert first is not None
    assert second is not None
    warm, cool = first.stages[0].exits[0], second.stages[0].exits[0]
    assert cool.positive_from < warm.positive_from
    assert cool.negative_below > warm.negative_below


def test_a_prefix_without_a_decision_is_an_error() -> None:
    whole = panel([point()])
    bare = Panel(whole.names, EQUAL, LATENCIES, 1, whole.decided, whole.survivors[:1])
    cases = ask(np.random.default_rng(12), 300)
    with pytest.raises(ValueError, match=r"survivors must hold a"):
        cascade_of(bare, cases, cases, np.arange(300), config=CONFIG)


def test_members_are_asked_by_latency_per_weight() -> None:
    weights, latencies = np.array([0.5, 0.25, 0.25]), np.array([10.0, 4.0, 5.0])
    assert member_order(weights, latencies) == [1, 0, 2]  # 16 per weight, then 20 and 20
    assert prefixes(weights, latencies) == [(1,), (1, 0)]
    assert prefixes(np.ones(1), np.ones(1)) == []


@given(st.floats(0, 1), st.floats(0, 0.5), st.floats(0.5, 2))
def test_exactly_what_lies_between_the_bounds_goes_on(
    probability: float, below: float, above: float
) -> None:
    bounds = Exit(point="first", negative_below=below, positive_from=above)
    stage = Stage(members=["a"], exits=[bounds], leaving={})
    decision = stops(stage, "first", probability)
    assert (decision == "negative") == (probability < below)
    assert (decision == "positive") == (probability >= above and not probability < below)
    assert stops(stage, "second", probability) is None
