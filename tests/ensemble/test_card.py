"""The model card."""

from ensemble.card import escape, render_card
from tests.ensemble.test_report import BINARY, EVIL, LEADERBOARD, PLAIN, evaluation_of, manifest_of

NOTICE = "Educational and research use; not a medical device."


def headings(card: str) -> list[str]:
    return [line[3:] for line in card.splitlines() if line.startswith("## ")]


def test_the_card_says_what_it_is_for_and_what_it_is_not_for() -> None:
    card = render_card(BINARY, evaluation_of(BINARY), LEADERBOARD)
    assert headings(card) == [
        "Intended use",
        "Data",
        "Members",
        "Calibration",
        "Operating points",
        "Sealed test",
        "Limitations",
    ]
    assert "Not for:\n\n- diagnosis" in card
    assert card.count(NOTICE) == 2
    assert card.endswith(f"{NOTICE}\n")


def test_every_operating_point_says_whether_it_is_certified_and_why() -> None:
    card = render_card(BINARY, evaluation_of(BINARY), [])
    assert "- **not certified**: chosen and measured on the same images\n" in card
    assert "- **certified**: held back\n" in card
    assert "sensitivity 1.000 (0.700 to 1.000, 95% Clopper-Pearson) of 12 positive" in card
    assert "on the sealed test: sensitivity 1.000 (0.158 to 1.000) of 2, specificity 0.333" in card


def test_a_bundle_without_a_positive_class_has_no_operating_points() -> None:
    card = render_card(PLAIN, evaluation_of(PLAIN), [])
    assert "None: no class was named positive." in card
    assert "certified" not in card


def test_a_bundle_that_was_not_evaluated_says_so() -> None:
    card = render_card(BINARY, None, [])
    assert "Not evaluated on a sealed test." in card
    assert "AUROC" not in card
    assert "when chosen: sensitivity 1.000" in card


def test_classes_with_few_test_images_are_named() -> None:
    card = render_card(BINARY, evaluation_of(BINARY), [])
    assert "- Fewer than 30 test images, too few to judge by: benign, malignant.\n" in card


def test_the_best_of_each_column_is_bold() -> None:
    card = render_card(BINARY, evaluation_of(BINARY), LEADERBOARD)
    assert "| Who | What | AUROC | Log loss ↓ | Calibration error (ECE) ↓ |\n" in card
    assert "|---|---|---:|---:|---:|\n" in card
    assert "| ensemble | all members | **0.910** | 0.300 | – |\n" in card
    assert "| recipe vgg16 | trial 2 | 0.850 | **0.250** | – |\n" in card


def test_without_a_leaderboard_there_is_no_empty_table() -> None:
    assert "Beside others" not in render_card(BINARY, evaluation_of(BINARY), [])


def test_tables_stay_whole_whatever_the_names() -> None:
    manifest = manifest_of(["benign", EVIL], EVIL)
    card = render_card(manifest, evaluation_of(manifest), LEADERBOARD)
    assert EVIL not in card
    widths: dict[int, set[int]] = {}
    table = 0
    for line in card.splitlines():
        if line.startswith("|"):
            widths.setdefault(table, set()).add(line.replace("\\|", "").count("|"))
        else:
            table += 1
    assert len(widths) == 5
    assert all(len(columns) == 1 for columns in widths.values())


def test_text_is_shown_as_it_is_on_one_line() -> None:
    assert escape("a|b *c* <i>") == r"a\|b \*c\* \<i>"
    assert escape("_edge_ but snake_case") == r"\_edge\_ but snake_case"
    assert escape("two\n\nlines ") == "two lines "
    assert escape("back\\slash `code` [link]") == r"back\\slash \`code\` \[link\]"
