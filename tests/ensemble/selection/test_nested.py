"""The worth of each choice on unseen groups, and which is shipped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.selection import nested
from ensemble.selection.choices import choose_from
from ensemble.selection.greedy import Costs
from ensemble.selection.nested import ABLATION, group_folds, select_members
from ensemble.selection.results import CHOICES, Budget, ChoiceWorth, Selection
from ensemble.selection.sharpness import tempered_label_probs
from search.errors import StudyError
from tests.ensemble.selection.simulated import Floats, same_costs, simulated, softmax

GROUPS = np.arange(300) // 2


def select(probs: Floats, labels: np.ndarray, **options: object) -> Selection:
    options = {"groups": GROUPS, "costs": same_costs(len(probs))} | options
    groups = options.pop("groups")
    return select_members(probs, labels, groups, **options)  # type: ignore[arg-type]


def worth(selection: Selection, choice: str) -> ChoiceWorth:
    [found] = [row for row in selection.choices if row.choice == choice]
    return found


def test_where_candidates_are_equal_the_single_is_shipped() -> None:
    probs, labels = simulated([2.0])
    selection = select(np.repeat(probs, 4, axis=0), labels)
    assert selection.choice == "best single"
    assert selection.weights == [1, 0, 0, 0]
    for choice in CHOICES:
        assert worth(selection, choice).difference == pytest.approx(0, abs=1e-9)


def test_where_errors_are_independent_more_than_one_is_shipped() -> None:
    probs, labels = simulated([1.0, 1.0, 1.0, 0.0])
    selection = select(probs, labels)
    assert selection.choice == "uniform top-k"
    assert selection.weights[3] == 0
    assert min(selection.weights[:3]) > 0
    single = worth(selection, "best single")
    assert single.difference > 5 * single.standard_error > 0


def test_each_choice_and_the_ablation_have_a_row_and_one_is_shipped() -> None:
    probs, labels = simulated([2.0, 1.0, 2.0])
    selection = select(probs, labels)
    assert [row.choice for row in selection.choices] == [*CHOICES, ABLATION]
    assert [row.choice for row in selection.choices if row.shipped] == [selection.choice]
    assert min(row.difference for row in selection.choices[:4]) == 0
    assert worth(selection, "all").members == 3
    assert worth(selection, ABLATION).members == worth(selection, "greedy").members


def test_logit_pooling_is_never_shipped() -> None:
    """Errors that multiply out: the geometric mean is right, and the best, but an ablation."""
    probs, labels = simulated([1.0] * 3, n_images=1200)
    selection = select(softmax(np.log(probs) * 4), labels, groups=np.arange(1200))
    assert worth(selection, ABLATION).difference < 0
    assert selection.choice in CHOICES


def test_the_log_loss_is_that_of_calibrated_pools() -> None:
    probs, labels = simulated([2.0])
    overconfident = softmax(np.log(probs) * 2)
    plain, sharpened = select(probs, labels), select(overconfident, labels)
    assert worth(sharpened, "best single").nll == pytest.approx(
        worth(plain, "best single").nll, abs=1e-5
    )


def test_a_temperature_is_fitted_without_the_images_it_is_scored_on() -> None:
    """Where the candidate is always right it seems safe to sharpen; elsewhere that is dear."""
    labels = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    said = np.array([0, 1, 0, 1, 0, 1, 1, 0])
    probs = np.where(said[:, None] == np.arange(2), 0.8, 0.2)[None]
    selection = select(probs, labels, groups=np.arange(8) // 4)
    assert worth(selection, "best single").nll > 3


def test_no_group_is_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, labels = simulated([2.0, 1.0])
    groups = np.random.default_rng(0).integers(0, 40, 300)
    seen: list[set[int]] = []
    tempered = tempered_label_probs(probs[0], labels)
    group_of = dict(zip(tempered.tolist(), groups.tolist(), strict=True))

    def spy(choice: str, given: Floats, **options: object) -> Floats:
        seen.append({group_of[value] for value in given[0].tolist()})
        counts.append(given.shape[1])
        return choose_from(choice, given, **options)  # type: ignore[arg-type]

    counts: list[int] = []
    monkeypatch.setattr(nested, "choose_from", spy)
    select(probs, labels, groups=groups)
    inner = [(known, count) for known, count in zip(seen, counts, strict=True) if count < 300]
    assert len(inner) == 5 * len(CHOICES)
    for known, count in inner:
        assert np.isin(groups, list(known)).sum() == count


def test_the_luck_of_the_best_of_many_is_not_counted() -> None:
    """All know the same, so the best in 60 images is no better than the mean on others."""
    probs, labels = simulated([1.0] * 80, n_images=60, n_classes=2, seed=3)
    losses = -np.log(probs[:, np.arange(60), labels]).mean(axis=1)
    selection = select(probs, labels, groups=np.arange(60))
    assert worth(selection, "best single").nll > losses.min() + 0.05


def test_a_choice_beyond_the_budget_is_estimated_but_not_shipped() -> None:
    probs, labels = simulated([1.5] * 12)
    selection = select(probs, labels, budget=Budget(members=2))
    assert worth(selection, "all").difference < 0
    assert selection.choice != "all"
    assert sum(weight > 0 for weight in selection.weights) == 2
    assert any(
        note.startswith("'all' cannot be shipped: its 12 members are beyond the budget (members 2)")
        for note in selection.notes
    )


def test_the_shipped_members_keep_every_bound() -> None:
    probs, labels = simulated([1.5] * 8)
    costs = Costs(np.arange(1.0, 9), np.full(8, 10.0))
    selection = select(probs, labels, costs=costs, budget=Budget(params_m=9, latency_ms=25))
    members = np.array(selection.weights) > 0
    assert members.sum() == 2
    assert costs.params_m[members].sum() <= 9


def test_a_near_copy_is_named() -> None:
    probs, labels = simulated([2.0, 0.0, 0.0])
    selection = select(np.stack([*probs, probs[0]]), labels)
    assert selection.notes[0] == (
        "candidate 3 is nearly a copy of 0: their most probable classes differ on 0.0% of the "
        "images and their errors correlate at 1.000"
    )
    assert selection.weights[3] == 0
    assert [(p.first, p.second) for p in selection.pairs if p.near_copy] == [(0, 3)]


def test_pairs_are_of_members_and_near_copies_and_no_more_than_fifty() -> None:
    probs, labels = simulated([2.0, 2.0, 0.0])
    selection = select(probs, labels)
    assert [(p.first, p.second) for p in selection.pairs] == [(0, 1)]
    crowd = select(np.repeat(probs, 5, axis=0), labels)
    assert len(crowd.pairs) == 31  # the members' one, and ten in each crowd of five
    assert len(select(np.repeat(probs, 9, axis=0), labels).pairs) == 50


def test_many_near_copies_are_counted_rather_than_listed() -> None:
    probs, labels = simulated([2.0])
    selection = select(np.repeat(probs, 15, axis=0), labels)
    assert "4 more are nearly copies of others" in selection.notes


def test_a_selection_is_the_same_under_a_seed() -> None:
    probs, labels = simulated([1.8 + 0.02 * i for i in range(24)])
    assert select(probs, labels, seed=3) == select(probs, labels, seed=3)


def test_the_order_of_the_candidates_does_not_matter() -> None:
    probs, labels = simulated([1.8 + 0.02 * i for i in range(12)])
    order = np.random.default_rng(0).permutation(12)
    weights = np.array(select(probs, labels).weights)
    np.testing.assert_allclose(select(probs[order], labels).weights, weights[order])


def test_the_trajectory_is_the_log_loss_of_greedy_picks() -> None:
    probs, labels = simulated([2.0, 2.0])
    selection = select(probs, labels)
    assert len(selection.trajectory) == 25
    assert selection.trajectory[1] < selection.trajectory[0]


def test_one_candidate_is_shipped_as_it_is() -> None:
    probs, labels = simulated([2.0])
    selection = select(probs, labels)
    assert (selection.choice, selection.weights, selection.pairs) == ("best single", [1.0], [])


def test_a_class_without_an_image_is_fine() -> None:
    probs, labels = simulated([2.0, 1.0], n_classes=3)
    assert select(probs[:, labels < 2], labels[labels < 2], groups=GROUPS[labels < 2]).weights


def test_two_groups_of_separate_classes_make_two_folds() -> None:
    probs, labels = simulated([2.0, 1.0], n_images=20, n_classes=2)
    assert select(probs, labels, groups=labels).weights
    assert sorted(set(group_folds(labels, labels, folds=5, seed=0).tolist())) == [0, 1]


def test_a_single_group_is_refused() -> None:
    probs, labels = simulated([2.0, 1.0])
    with pytest.raises(StudyError, match=r"all 300 images are of one group"):
        select(probs, labels, groups=np.zeros(300, np.int64))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n_groups=st.integers(2, 40), folds=st.integers(2, 6))
def test_folds_are_all_used_and_split_no_group(seed: int, n_groups: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), rng.integers(0, n_groups, 60)])
    labels = rng.integers(0, 3, len(groups))
    fold_of = group_folds(labels, groups, folds=folds, seed=seed)
    assert len(np.unique(fold_of)) == min(folds, n_groups)
    assert len(set(zip(groups.tolist(), fold_of.tolist(), strict=True))) == n_groups


def test_nan_probabilities_are_refused_by_candidate() -> None:
    probs, labels = simulated([2.0, 1.0])
    for value in (np.nan, np.inf):
        broken = probs.copy()
        broken[1, 7, 0] = value
        with pytest.raises(StudyError, match=r"candidate 1 has NaN .* on 1 images, the first is 7"):
            select(broken, labels)


def test_logits_are_refused_by_candidate() -> None:
    probs, labels = simulated([2.0, 1.0])
    with pytest.raises(StudyError, match=r"candidate 0: .*are these logits"):
        select(np.log(probs), labels)
    with pytest.raises(StudyError, match=r"candidate 1: .*a sum is 0.02 off"):
        select(np.stack([probs[0], probs[1] * 1.02]), labels)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    probs, labels = simulated([2.0, 1.0])
    with pytest.raises(StudyError, match=r"\(candidates, images, at least 2 classes\)"):
        select(probs[0], labels)
    with pytest.raises(StudyError, match=r"probabilities of 300 images, but .*\(299,\) labels"):
        select(probs, labels[1:])
    with pytest.raises(StudyError, match=r"\(299,\) groups"):
        select(probs, labels, groups=GROUPS[1:])


def test_labels_that_are_no_class_are_refused() -> None:
    probs, labels = simulated([2.0, 1.0])
    for wrong in (labels + 1, labels - 1, labels / 2):
        with pytest.raises(StudyError, match=r"labels must be integers from 0 to 2"):
            select(probs, wrong)
