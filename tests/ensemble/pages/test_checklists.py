"""The index of the reporting guidelines."""

import pytest
from pydantic import ValidationError

from ensemble.pages.checklists import Item, load_checklists


def test_every_item_of_both_guidelines_is_there_once_and_in_order() -> None:
    tripod, claim = load_checklists()
    assert [item.item for item in tripod.items] == [str(k) for k in range(1, 28)]
    assert [item.item for item in claim.items] == [str(k) for k in range(1, 45)]


def test_what_is_not_answered_says_why() -> None:
    for checklist in load_checklists():
        assert 0 < checklist.answered < len(checklist.items)
        open_ones = [item for item in checklist.items if item.where is None]
        assert all(item.answer.startswith("not answered here: ") for item in open_ones)
        assert all(len(item.answer) > 25 for item in open_ones)


@pytest.mark.parametrize("answer", [{}, {"where": "card", "not": "unknown"}])
def test_an_item_has_a_place_or_a_reason_and_never_both(answer: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=r"item 3 needs either where or not"):
        Item.model_validate({"item": "3", "title": "x"} | answer)
