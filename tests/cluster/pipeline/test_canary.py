"""A canary is promoted or taken back by rule, whatever happens in between."""

from datetime import timedelta
from pathlib import Path

import pytest

from cluster.pipeline.canary import Verdict, judge, try_release, withdraw_earlier
from cluster.pipeline.config import CanaryConfig
from cluster.pipeline.release import release
from ensemble.bundle import Bundle, load_bundle
from search.errors import ServingError
from serving.config import Canary, Rollout, Version
from serving.scoring.compare import Counts
from tests.cluster.pipeline.fakes import BEGIN, Clock, FakeAdmin
from tests.tiny import write_tiny_bundle

RULES = CanaryConfig(images=50, minutes=1)
GOOD = Counts(agreements=50)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("canary")
    return release(load_bundle(write_tiny_bundle(folder / "b", n_members=1)), folder / "releases")


def watched(admin: FakeAdmin, released: Bundle, clock: Clock | None = None) -> Verdict:
    return try_release(admin, released, RULES, begun=BEGIN, around=(clock or Clock()).around())


def test_a_canary_that_agrees_is_promoted(released: Bundle, tmp_path: Path) -> None:
    admin, clock = FakeAdmin(tmp_path, [Counts(agreements=20), GOOD]), Clock()
    verdict = watched(admin, released, clock)
    assert (verdict.promoted, verdict.figures["agreements"]) == (True, 50)
    assert verdict.why == (
        "promoted: 0 of 50 compared images decided otherwise, at most 5.8% with 95% confidence"
    )
    assert admin.wanted.serving == released.folder.name
    assert admin.puts[0].serving == "old"
    assert admin.puts[0].canary == Canary(name=released.folder.name, percent=10)
    assert admin.puts[0].bundles[released.folder.name].digest == released.manifest.digest
    assert clock.said[0].endswith("answers 10% of the images")


@pytest.mark.parametrize(
    ("counts", "verdict", "why"),
    [
        (Counts(), "wait", "0 of 0 compared"),
        (Counts(agreements=49), "wait", "0 of 49"),
        (Counts(agreements=50), "promote", "at most 5.8%"),
        (Counts(agreements=48, disagreements=2), "refuse", "2 of 50 .* up to 12.1% .* 10.0% may"),
        (Counts(agreements=1, disagreements=4), "refuse", "4 of 5"),  # 34% at the least
        (Counts(agreements=9, disagreements=1), "wait", "1 of 10"),
        (Counts(agreements=90, failed=1), "refuse", "1 comparisons failed, 0 may"),
    ],
)
def test_the_rule_goes_by_the_bounds_of_the_share(counts: Counts, verdict: str, why: str) -> None:
    import re

    found, told = judge(counts, RULES)
    assert found == verdict
    assert re.search(why, told)


def test_a_canary_that_decides_otherwise_is_taken_back(released: Bundle, tmp_path: Path) -> None:
    admin = FakeAdmin(tmp_path, [Counts(agreements=40, disagreements=10)])
    before = admin.wanted
    verdict = watched(admin, released)
    assert (verdict.promoted, verdict.final) == (False, True)
    assert verdict.why.startswith("taken back: 10 of 50 compared images decided otherwise, up to")
    assert admin.wanted == before


def test_too_few_images_in_time_are_said_and_may_be_tried_again(
    released: Bundle, tmp_path: Path
) -> None:
    admin, clock = FakeAdmin(tmp_path, [Counts(agreements=7)]), Clock()
    verdict = watched(admin, released, clock)
    assert (verdict.promoted, verdict.final) == (False, False)
    assert "0 of 7 compared images decided otherwise in 1 minutes, 50 are asked" in verdict.why
    assert clock.time - BEGIN == timedelta(minutes=1)
    assert admin.wanted.canary is None
    assert set(admin.wanted.bundles) == {"old"}


def test_a_release_that_the_service_refuses_changes_nothing(
    released: Bundle, tmp_path: Path
) -> None:
    admin = FakeAdmin(tmp_path)
    admin.refuses_puts = "bundle_refused: golden image 0.png came out otherwise"
    verdict = watched(admin, released)
    assert (verdict.promoted, verdict.final) == (False, False)
    assert "golden image 0.png came out otherwise" in verdict.why


def test_a_release_outside_the_services_root_is_an_error_of_the_user(
    released: Bundle, tmp_path: Path
) -> None:
    admin = FakeAdmin(tmp_path)
    admin.refuses_puts = "bundle_not_allowed: only bundles of the present rollout; set bundle_root"
    with pytest.raises(ServingError, match=r"set bundle_root"):
        watched(admin, released)


def test_one_replica_that_refuses_takes_it_back_with_its_reason(
    released: Bundle, tmp_path: Path
) -> None:
    admin = FakeAdmin(tmp_path, [GOOD])
    admin.refuses = "no such file"
    verdict = watched(admin, released)
    assert verdict.why == "a replica refused it: no such file"
    assert admin.wanted.canary is None


def killed_while_watching(released: Bundle, folder: Path) -> FakeAdmin:
    """A service with a canary that nobody watches any more."""
    admin = FakeAdmin(folder, [Counts(agreements=3)])
    looks = iter(range(3))

    def die() -> None:
        if next(looks, None) is None:
            raise KeyboardInterrupt

    admin.on_look = die
    with pytest.raises(KeyboardInterrupt):
        watched(admin, released)
    assert admin.wanted.canary is not None
    admin.on_look = lambda: None
    return admin


def test_who_comes_back_watches_on_without_putting_it_up_again(
    released: Bundle, tmp_path: Path
) -> None:
    admin = killed_while_watching(released, tmp_path)
    admin.counts = [Counts(agreements=30), GOOD]
    verdict = watched(admin, released)
    assert verdict.promoted
    assert len(admin.puts) == 1


def test_who_comes_back_after_the_time_is_over_judges_what_was_compared(
    released: Bundle, tmp_path: Path
) -> None:
    for counts, promoted in ((GOOD, True), (Counts(agreements=9), False)):
        admin, clock = killed_while_watching(released, tmp_path), Clock()
        admin.counts = [counts]
        clock.time += timedelta(hours=9)
        assert watched(admin, released, clock).promoted is promoted
        assert admin.wanted.canary is None
        assert clock.time == BEGIN + timedelta(hours=9)


def test_a_rollout_that_somebody_changed_is_left_as_it_is(released: Bundle, tmp_path: Path) -> None:
    admin = FakeAdmin(tmp_path, [Counts(agreements=1)])
    other = Rollout(bundles={"x": Version(path=tmp_path / "x")}, serving="x")

    def change() -> None:
        if admin.puts:
            admin.wanted, admin.digests = other, {"x": ""}

    admin.on_look = change
    verdict = watched(admin, released)
    assert "somebody changed the rollout meanwhile" in verdict.why
    assert admin.wanted == other


def test_another_canary_is_not_pushed_aside(released: Bundle, tmp_path: Path) -> None:
    admin = FakeAdmin(tmp_path)
    bundles = {**admin.wanted.bundles, "theirs": Version(path=tmp_path / "theirs")}
    admin.set_rollout(
        Rollout(bundles=bundles, serving="old", canary=Canary(name="theirs", percent=5))
    )
    with pytest.raises(ServingError, match=r"another canary stands, 'theirs'; promote it or take"):
        watched(admin, released)


def test_the_canary_of_an_earlier_bundle_is_taken_back(released: Bundle, tmp_path: Path) -> None:
    admin, clock, earlier = FakeAdmin(tmp_path), Clock(), "tiny-0123456789ab"
    bundles = {**admin.wanted.bundles, earlier: Version(path=tmp_path / "earlier")}
    admin.set_rollout(
        Rollout(bundles=bundles, serving="old", canary=Canary(name=earlier, percent=5))
    )
    withdraw_earlier(admin, released.folder.name, clock.said.append)
    assert admin.wanted.canary is None
    assert set(admin.wanted.bundles) == {"old"}
    assert clock.said == [f"canary {earlier} of an earlier bundle is taken back"]


def test_earlier_releases_without_a_role_are_let_go_and_others_stay(
    released: Bundle, tmp_path: Path
) -> None:
    admin = FakeAdmin(tmp_path, [GOOD])
    names = ["old", "tiny-0123456789ab", "kept", "tiny-by-hand"]
    bundles = {name: Version(path=tmp_path / name) for name in names}
    admin.set_rollout(Rollout(bundles=bundles, serving="old"))
    watched(admin, released)
    assert set(admin.wanted.bundles) == {"old", "kept", "tiny-by-hand", released.folder.name}


def test_a_promotion_whose_answer_was_lost_is_looked_up(released: Bundle, tmp_path: Path) -> None:
    admin = FakeAdmin(tmp_path, [GOOD])
    admin.loses_answers = True
    assert watched(admin, released).promoted


def test_counts_of_a_replica_that_does_not_follow_yet_are_not_taken(
    released: Bundle, tmp_path: Path
) -> None:
    from cluster.pipeline.canary import _counts

    admin = FakeAdmin(tmp_path, [GOOD])
    state = admin.set_rollout(
        Rollout(
            bundles={**admin.wanted.bundles, "new": Version(path=tmp_path / "new")},
            serving="old",
            canary=Canary(name="new", percent=5),
        )
    )
    state = state.model_copy(update={"comparisons": {"canary": GOOD}})
    assert _counts(state, "new") == GOOD
    assert _counts(state.model_copy(update={"versions": state.versions[:1]}), "new") == Counts()
