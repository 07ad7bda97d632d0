import json
from pathlib import Path

import pytest

from search.errors import ServingError
from serving.config import Rollout
from serving.scoring.board import Desired, MemoryBoard, RayBoard
from tests.rays import started_ray

A, B, C = (Rollout.of(Path("/bundles") / name) for name in "abc")


class Deaf(MemoryBoard):
    """A board that answers only when it is told to."""

    deaf = False

    def get(self, key: str) -> str | None:
        self._hear()
        return super().get(key)

    def put(self, key: str, value: str) -> None:
        self._hear()
        super().put(key, value)

    def _hear(self) -> None:
        if self.deaf:
            raise ServingError("Ray's head does not answer")


def replica(board: MemoryBoard, *configs: Rollout, application: str = "one") -> Desired:
    desired = Desired(board, application)
    for config in configs:
        desired.configured(config)
    return desired


def test_the_config_counts_where_no_admin_said_anything() -> None:
    desired = replica(MemoryBoard(), A)
    assert (desired.wanted(), desired.previous(), desired.reason) == (A, None, None)
    assert desired.configuration == A


def test_before_a_config_there_is_nothing_to_serve() -> None:
    desired = replica(MemoryBoard())
    with pytest.raises(ServingError, match=r"no rollout is configured"):
        desired.wanted()
    with pytest.raises(ServingError, match=r"no rollout is configured"):
        desired.override(A)


def test_every_replica_under_the_same_config_follows_the_admin() -> None:
    board = MemoryBoard()
    first, second = replica(board, A), replica(board, A)
    first.override(B)
    restarted = replica(board, A)
    assert [d.wanted() for d in (first, second, restarted)] == [B, B, B]
    assert [d.previous() for d in (first, second, restarted)] == [A, A, A]


def test_two_applications_do_not_follow_each_other() -> None:
    board = MemoryBoard()
    replica(board, A).override(B)
    assert replica(board, A, application="two").wanted() == A


def test_an_edited_config_wins_over_the_admin() -> None:
    board = MemoryBoard()
    first, second = replica(board, A), replica(board, A)
    first.override(B)
    for desired in (first, second):
        desired.configured(C)
    assert [d.wanted() for d in (first, second, replica(board, C))] == [C, C, C]
    assert [d.previous() for d in (first, second, replica(board, C))] == [B, B, B]


def test_the_same_config_again_forgets_nothing() -> None:
    desired = replica(MemoryBoard(), A)
    desired.override(B)
    desired.configured(A)
    assert desired.wanted() == B


def test_a_config_that_comes_back_does_not_bring_the_admins_word_back() -> None:
    board = MemoryBoard()
    desired = replica(board, A)
    desired.override(B)
    desired.configured(C)
    desired.configured(A)
    assert desired.wanted() == A


def test_an_admin_who_speaks_before_the_last_replica_has_the_config_is_heard() -> None:
    board = MemoryBoard()
    first, late = replica(board, A), replica(board, A)
    first.configured(B)
    first.override(C)
    late.configured(B)
    assert (late.wanted(), late.previous()) == (C, B)


def test_the_order_that_a_config_names_bundles_in_does_not_matter() -> None:
    board = MemoryBoard()
    names = {"x": A.bundles["bundle"], "y": B.bundles["bundle"]}
    replica(board, Rollout(bundles=names, serving="x")).override(C)
    turned = dict(reversed(names.items()))
    assert replica(board, Rollout(bundles=turned, serving="x")).wanted() == C


def test_an_override_said_twice_is_still_one_step_back() -> None:
    desired = replica(MemoryBoard(), A)
    desired.override(B)
    desired.override(B)
    assert desired.previous() == A
    desired.override(A)
    assert (desired.wanted(), desired.previous()) == (A, B)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", r"cannot be read"),
        ('{"wanted": {"bundles": {}, "serving": "x"}}', r"cannot be read"),
        (json.dumps({"wanted": None, "by": "whom"}), r"cannot be read"),
        (
            '{"wanted": {"bundles": {"x": {"path": "~nobody-at-all/b"}}, "serving": "x"}}',
            r"cannot be read",
        ),
        (" " * (2**20 + 1), r"has 1048577 characters"),
    ],
)
def test_what_cannot_be_read_is_passed_over_with_a_reason(text: str, reason: str) -> None:
    board = MemoryBoard()
    desired = replica(board, A)
    desired.override(B)
    [key] = board._entries
    board.put(key, text)
    assert desired.wanted() == A
    assert desired.reason is not None
    assert reason in desired.reason
    assert "the config counts" in desired.reason
    desired.override(C)
    assert desired.wanted() == C
    assert not desired.reason


def test_where_the_board_does_not_answer_its_last_word_counts() -> None:
    board = Deaf()
    desired = replica(board, A)
    desired.override(B)
    board.deaf = True
    assert (desired.wanted(), desired.previous()) == (B, A)
    assert desired.reason == "Ray's head does not answer"
    board.deaf = False
    assert desired.wanted() == B
    assert desired.reason is None


def test_an_override_that_cannot_be_kept_does_not_count() -> None:
    board = Deaf()
    desired = replica(board, A)
    board.deaf = True
    with pytest.raises(ServingError, match=r"Ray's head does not answer"):
        desired.override(B)
    board.deaf = False
    assert desired.wanted() == A


def test_a_config_is_taken_although_the_board_does_not_answer() -> None:
    board = Deaf()
    desired = replica(board, A)
    desired.override(B)
    board.deaf = True
    desired.configured(C)
    assert (desired.wanted(), desired.previous()) == (C, B)


def test_a_board_without_ray_says_so() -> None:
    with pytest.raises(ServingError, match=r"no Ray is connected"):
        RayBoard().get("key")


@pytest.mark.slow
def test_ray_keeps_a_rollout_for_every_replica() -> None:
    with started_ray(num_cpus=1):
        board = RayBoard()
        assert board.get("key") is None
        board.delete("key")
        board.put("key", "one")
        board.put("key", "größer")
        assert board.get("key") == "größer"
        board.delete("key")
        assert board.get("key") is None

        first, second = Desired(RayBoard(), "app"), Desired(RayBoard(), "app")
        first.configured(A)
        first.override(B)
        second.configured(A)
        assert (second.wanted(), second.previous()) == (B, A)
    with pytest.raises(ServingError, match=r"Ray"):
        board.get("key")
