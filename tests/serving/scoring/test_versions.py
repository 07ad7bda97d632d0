from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.errors import BundleError, ConfigError, ServingError
from serving.config import Canary, Rollout, Version
from serving.scoring.versions import Live, Versions


@dataclass(frozen=True)
class Opened:
    """A bundle that remembers which folder it came from."""

    digest: str
    n_lost: int = 0


class Folders:
    """Loads what stands in it by the folder's name, and counts."""

    def __init__(self, **digests: str) -> None:
        self.digests = digests
        self.opened: list[str] = []
        self.errors: dict[str, Exception] = {}

    def __call__(self, version: Version) -> Opened:
        self.opened.append(version.path.name)
        if version.path.name in self.errors:
            raise self.errors[version.path.name]
        return Opened(self.digests[version.path.name])


def rollout(
    serving: str = "old",
    *,
    canary: str | None = None,
    shadow: str | None = None,
    percent: float = 10,
    **folders: str,
) -> Rollout:
    folders = folders or {"old": "a", "new": "b"}
    return Rollout(
        bundles={name: Version(path=Path("/bundles") / folder) for name, folder in folders.items()},
        serving=serving,
        canary=None if canary is None else Canary(name=canary, percent=percent),
        shadow=shadow,
    )


@pytest.fixture
def folders() -> Folders:
    return Folders(a="digest a", b="digest b", c="digest c")


@pytest.fixture
def versions(folders: Folders) -> Versions[Opened]:
    return Versions(folders)


def told(versions: Versions[Opened]) -> list[tuple[str, str, str | None]]:
    return [(state.name, state.role, state.digest or state.reason) for state in versions.states()]


def test_before_the_first_rollout_nothing_is_live(versions: Versions[Opened]) -> None:
    with pytest.raises(ServingError, match=r"no bundle is loaded yet"):
        _ = versions.live
    assert versions.states() == []


def test_every_named_bundle_is_loaded_and_has_its_role(versions: Versions[Opened]) -> None:
    versions.apply(
        rollout("old", canary="new", shadow="other", old="a", new="b", other="c", rest="a")
    )
    assert told(versions) == [
        ("old", "serving", "digest a"),
        ("new", "canary", "digest b"),
        ("other", "shadow", "digest c"),
        ("rest", "ready", "digest a"),
    ]
    live = versions.live
    assert (live.serving, live.canary, live.shadow) == (
        Opened("digest a"),
        Opened("digest b"),
        Opened("digest c"),
    )


def test_without_them_there_is_no_canary_and_no_shadow(versions: Versions[Opened]) -> None:
    versions.apply(rollout())
    assert (versions.live.canary, versions.live.shadow) == (None, None)


def test_only_what_is_new_is_loaded(versions: Versions[Opened], folders: Folders) -> None:
    versions.apply(rollout("old"))
    kept = versions.live.loaded["new"]
    folders.digests["a"] = "changed on disk"
    versions.apply(rollout("new", old="a", new="b", third="c"))
    assert folders.opened == ["a", "b", "c"]
    assert versions.live.serving is kept
    assert versions.live.loaded["old"].digest == "digest a"


def test_a_name_with_another_folder_or_digest_is_loaded_anew(
    versions: Versions[Opened], folders: Folders
) -> None:
    versions.apply(rollout(old="a"))
    versions.apply(rollout(old="b"))
    assert versions.live.serving.digest == "digest b"
    pinned = {"old": Version(path=Path("/bundles/b"), digest="digest b")}
    versions.apply(Rollout(bundles=pinned, serving="old"))
    assert folders.opened == ["a", "b", "b"]


def test_a_bundle_no_longer_named_is_let_go(versions: Versions[Opened]) -> None:
    versions.apply(rollout(old="a", new="b"))
    versions.apply(rollout(old="a"))
    assert list(versions.live.loaded) == ["old"]


@pytest.mark.parametrize("role", ["serving", "canary", "shadow"])
def test_a_refused_bundle_changes_nothing_and_says_why(
    role: str, versions: Versions[Opened], folders: Folders
) -> None:
    versions.apply(rollout(old="a"))
    before = versions.live
    folders.errors["b"] = BundleError("card.md: changed")
    bad = {
        "serving": rollout("new", old="a", new="b"),
        "canary": rollout(canary="new", old="a", new="b"),
        "shadow": rollout(shadow="new", old="a", new="b"),
    }[role]
    with pytest.raises(BundleError, match=r"card\.md: changed"):
        versions.apply(bad)
    assert versions.live is before
    assert told(versions) == [
        ("old", "serving", "digest a"),
        ("new", "refused", "card.md: changed"),
    ]


def test_a_name_may_serve_by_one_folder_and_be_refused_by_another(
    versions: Versions[Opened], folders: Folders
) -> None:
    versions.apply(rollout(old="a"))
    folders.errors["b"] = BundleError("card.md: changed")
    with pytest.raises(BundleError, match=r"card\.md"):
        versions.apply(rollout(old="b"))
    assert [(name, role) for name, role, _ in told(versions)] == [
        ("old", "serving"),
        ("old", "refused"),
    ]


def test_a_refusal_is_told_until_a_rollout_succeeds(
    versions: Versions[Opened], folders: Folders
) -> None:
    versions.apply(rollout(old="a"))
    folders.errors["b"] = BundleError("card.md: changed")
    with pytest.raises(BundleError, match=r"card\.md"):
        versions.apply(rollout("new", new="b"))
    versions.apply(rollout(old="a"))
    assert told(versions) == [("old", "serving", "digest a")]


def test_a_refused_bundle_that_nothing_uses_holds_nothing_up(
    versions: Versions[Opened], folders: Folders
) -> None:
    folders.errors["b"] = BundleError("card.md: changed")
    versions.apply(rollout("old", old="a", new="b"))
    assert told(versions) == [
        ("old", "serving", "digest a"),
        ("new", "refused", "card.md: changed"),
    ]
    folders.errors.clear()
    versions.apply(rollout("new", old="a", new="b"))  # tried again
    assert versions.live.serving.digest == "digest b"


def test_a_librarys_own_error_is_a_refusal_without_its_words(
    versions: Versions[Opened], folders: Folders
) -> None:
    folders.errors["a"] = RuntimeError("a secret of the machine")
    with pytest.raises(BundleError, match=r"^/bundles/a: cannot be loaded \(RuntimeError\)"):
        versions.apply(rollout(old="a"))
    assert "secret" not in str(versions.states())
    folders.errors["a"] = ConfigError("the engine is none")
    with pytest.raises(BundleError, match=r"the engine is none"):
        versions.apply(rollout(old="a"))


def test_a_rollout_refused_just_now_is_not_to_be_tried_again(
    versions: Versions[Opened], folders: Folders
) -> None:
    good, bad = rollout(old="a"), rollout("new", old="a", new="b")
    folders.errors["b"] = BundleError("card.md: changed")
    assert versions.untried(good)
    versions.apply(good)
    assert versions.untried(bad)
    with pytest.raises(BundleError, match=r"card\.md"):
        versions.apply(bad)
    assert not versions.untried(bad)
    assert not versions.untried(good)  # it is live: the refusal stays told
    assert versions.untried(rollout(old="c"))


def test_the_old_bundle_answers_while_the_new_one_is_loaded() -> None:
    begun, go_on = Event(), Event()

    def load(version: Version) -> Opened:
        if version.path.name == "b":
            begun.set()
            assert go_on.wait(10)
        return Opened(version.path.name)

    versions = Versions(load)
    versions.apply(rollout(old="a"))
    with ThreadPoolExecutor(1) as pool:
        swap = pool.submit(versions.apply, rollout(old="b"))
        assert begun.wait(10)
        assert versions.live.serving.digest == "a"
        go_on.set()
        swap.result(10)
    assert versions.live.serving.digest == "b"


def test_rollouts_are_loaded_one_at_a_time() -> None:
    inside: list[str] = []

    def load(version: Version) -> Opened:
        inside.append(version.path.name)
        assert len(inside) == 1
        Event().wait(0.005)
        inside.pop()
        return Opened(version.path.name)

    versions = Versions(load)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(versions.apply, [rollout(old=name) for name in "abcdefgh"]))


def live(percent: float) -> Live[Opened]:
    loaded = {"old": Opened("a"), "new": Opened("b")}
    return Live(rollout(canary="new", percent=percent), loaded)


def keys() -> Iterator[bytes]:
    """A thousand keys, evenly apart, from the first to the last."""
    return ((i * (2**64 - 1) // 999).to_bytes(8, "big") + b"rest" * 6 for i in range(1000))


@pytest.mark.parametrize("percent", [1, 12.5, 50, 99])
def test_the_canary_answers_its_share(percent: float) -> None:
    picked = [live(percent).pick(key) for key in keys()]
    assert picked.count(("new", Opened("b"))) == pytest.approx(percent * 10, abs=1)
    assert {name for name, _ in picked} == {"old", "new"}


def test_a_canary_of_a_hundred_percent_answers_all() -> None:
    assert {live(100).pick(key)[0] for key in keys()} == {"new"}


def test_without_a_canary_the_serving_bundle_answers() -> None:
    alone = Live(rollout(), {"old": Opened("a"), "new": Opened("b")})
    assert {alone.pick(key) for key in keys()} == {("old", Opened("a"))}


@given(st.binary(min_size=32, max_size=32), st.floats(0.01, 100), st.floats(0.01, 100))
def test_a_growing_canary_keeps_its_images(key: bytes, one: float, other: float) -> None:
    small, large = sorted([one, other])
    if live(small).pick(key)[0] == "new":
        assert live(large).pick(key)[0] == "new"


def test_a_bundle_that_lost_members_is_loaded_again_by_the_next_apply() -> None:
    opened = [Opened("digest a", n_lost=1), Opened("digest a")]
    versions = Versions[Opened](lambda _: opened.pop(0))
    for lost in (1, 0, 0):  # the whole one is kept
        versions.apply(rollout("old", old="a"))
        assert versions.live.serving.n_lost == lost
