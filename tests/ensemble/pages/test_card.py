"""The model card."""

import re
from dataclasses import replace

import pytest

from ensemble.pages.card import escape, render_card
from ensemble.pages.checklists import load_checklists
from tests.ensemble.pages.stories import (
    EVIL,
    NOTICE,
    evaluation_of,
    full_story,
    least_story,
    manifest_of,
)

SECTIONS = [
    *("Intended use", "Data", "Members", "Calibration", "Operating points", "Prevalence", "Test"),
    *("Subgroups", "Robustness", "Images that do not belong", "Cascade", "Gates", "Limits"),
    "Checklists",
]


def headings(card: str) -> list[str]:
    return [line[3:] for line in card.splitlines() if line.startswith("## ")]


def part(card: str, heading: str) -> str:
    _, _, rest = card.partition(f"\n## {heading}\n")
    return rest.partition("\n## ")[0]


@pytest.fixture(scope="module")
def full() -> str:
    return render_card(full_story(), "CC BY-NC 4.0")


@pytest.fixture(scope="module")
def least() -> str:
    return render_card(least_story(manifest=manifest_of(["a", "b", "c"], None)))


def test_every_section_is_in_every_card(full: str, least: str) -> None:
    assert headings(full) == headings(least) == SECTIONS
    for card in (full, least):
        assert "Not for:\n\n- diagnosis" in card
        assert card.count(NOTICE) == 2
        assert card.endswith(f"{NOTICE}\n")


def test_licences_and_counts_are_stated(full: str, least: str) -> None:
    assert "weights: CC BY-NC 4.0." in part(full, "Data")
    assert "- train: 1,400 images\n- test: 5 images\n" in part(full, "Data")
    assert "weights: not stated." in part(least, "Data")


def test_every_operating_point_says_whether_it_is_certified_and_why(full: str) -> None:
    points = part(full, "Operating points")
    assert "- **certified**: 117 of 120 were caught\n" in points
    assert "- **not certified**: not certifiable with n₊ = 41\n" in points
    assert "sensitivity 0.975 (0.955 to 0.990) of n₊ = 120" in points
    assert "90% Clopper-Pearson\n- on the test: sensitivity 0.960 (0.904 to 0.991) of 2" in points
    assert "from 0.300 up to it a person decides" in points


def test_a_bundle_without_a_positive_class_has_no_operating_points(least: str) -> None:
    assert "None: no class was named positive." in part(least, "Operating points")
    assert "certified" not in part(least, "Operating points")


def test_what_was_not_measured_says_so(least: str) -> None:
    assert "Not measured" in part(least, "Robustness")
    assert "Not measured" in part(least, "Subgroups")
    assert "it answers on any image" in part(least, "Images that do not belong")
    assert "- It answers on any image" in part(least, "Limits")
    assert "None: all members" in part(least, "Cascade")
    assert "No rule was set" in part(least, "Gates")
    assert "Sealed" not in part(least, "Test")


def test_what_was_measured_is_there_with_its_interval(full: str) -> None:
    assert "| blur | 0.700 (0.600 to 0.800) | – | 0.700 (0.600 to 0.800) |" in full
    assert "| site | palms | 30 | 9 | 0.700 (0.550 to 0.850) | – |" in full
    assert "| noise | 50 | 0.980 | 94% |" in full
    assert "| screen | 1 of 300 | 1.8% | 40% |" in full
    assert "| AUROC | 0.900 | 0.850 to 0.950 |" in full
    assert "- best single: Log loss -0.020 (-0.030 to -0.010), AUROC 0.010" in full
    assert "Sealed until the bundle was built" in part(full, "Test")


def test_gates_that_were_overridden_are_named(full: str) -> None:
    gates = part(full, "Gates")
    assert "- brier: **holds**; 0.176 is at most 0.191\n" in gates
    assert "- **overridden by force**: sensitivity_in_subgroups\n" in gates


@pytest.mark.parametrize(("share", "is_said"), [(0.41, False), (0.2, True)])
def test_a_prevalence_that_shifted_is_said(share: float, is_said: bool) -> None:
    prevalence = {"benign": 1 - share, "malignant": share}
    manifest = manifest_of(["benign", "malignant"], "malignant", prevalence=prevalence)
    card = render_card(full_story(manifest=manifest))
    assert ("is another than the calibrator's" in part(card, "Prevalence")) == is_said


def test_classes_with_few_test_images_are_named(full: str) -> None:
    assert "- Fewer than 30 test images, too few to judge by: benign, malignant.\n" in full


def test_the_best_of_each_column_is_bold(full: str) -> None:
    assert "| Who | What | AUROC | Log loss ↓ | Calibration error (ECE) ↓ |\n" in full
    assert "| ensemble | all | **0.910** | 0.300 | – |\n" in full
    assert "| recipe vgg16 | all | 0.850 | **0.250** | – |\n" in full


def test_without_a_leaderboard_there_is_no_empty_table(least: str) -> None:
    assert "Beside others" not in least


def test_all_items_of_the_checklists_are_listed(full: str) -> None:
    rows = re.findall(r"^\| \d+ \|", part(full, "Checklists"), re.MULTILINE)
    assert len(rows) == 27 + 44


def test_a_place_that_a_checklist_names_is_in_the_card(full: str) -> None:
    known = {*headings(full), "title", "title and first paragraph", "title and Intended use"}
    for item in (item for checklist in load_checklists() for item in checklist.items):
        for places in re.findall(r"card: ([^;]+)", item.where or ""):
            named = re.sub(r"\([^)]*\)", "", places).split(", as far")[0]
            assert {place.strip() for place in named.split(", ")} <= known, item


def test_tables_stay_whole_whatever_the_names() -> None:
    manifest = manifest_of(["benign", EVIL], EVIL)
    story = full_story(manifest=manifest, evaluation=evaluation_of(manifest))
    card = render_card(story, EVIL)
    assert EVIL not in card
    lines = [line.replace("\\|", "") for line in card.splitlines()]
    tables: list[set[int]] = [set()]
    for line in lines:
        if line.startswith("|"):
            tables[-1].add(line.count("|"))
        elif tables[-1]:
            tables.append(set())
    assert len(tables) > 6
    assert all(len(widths) <= 1 for widths in tables)


def test_a_card_is_of_a_bundle() -> None:
    with pytest.raises(ValueError, match=r"the story has no manifest"):
        render_card(replace(full_story(), manifest=None))


def test_text_is_shown_as_it_is_on_one_line() -> None:
    assert escape("a|b *c* <i>") == r"a\|b \*c\* \<i>"
    assert escape("_edge_ but snake_case") == r"\_edge\_ but snake_case"
    assert escape("two\n\nlines ") == "two lines "
    assert escape("back\\slash `code` [link]") == r"back\\slash \`code\` \[link\]"
