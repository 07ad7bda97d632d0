"""The report, read with the standard library's parser."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from ensemble.evaluation.results import Example, LeaderboardRow
from ensemble.pages.comparison import leaderboard_table
from ensemble.pages.report import write_report
from ensemble.pages.story import Curve, Story
from ensemble.pages.technical import SKIPPED
from tests.ensemble.pages.stories import (
    EVIL,
    NOTICE,
    PIXEL,
    est,
    evaluation_of,
    full_story,
    least_story,
    manifest_of,
)
from tests.pages import Reader

CLINICAL = [
    *("leaderboard", "points", "ranking", "calibration", "confusion", "benefit", "refer"),
    *("coverage", "subgroups", "corruptions", "novelty", "examples"),
]
TECHNICAL = [
    *("gates", "selection", "likeness", "contributions", "calibrators", "views", "training"),
    *("members", "survivors", "cascade", "metrics", "classes", "groups", "skipped"),
]


def page_of(folder: Path, story: Story) -> Reader:
    path = folder / "pages" / "report.html"
    write_report(path, story)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    return Reader(path.read_text(encoding="utf-8"))


def sections(page: Reader) -> list[str | None]:
    return [key for key in page.sections if key not in (None, "summary")]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Every section there is."""
    return page_of(tmp_path_factory.mktemp("full"), full_story())


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return page_of(tmp_path_factory.mktemp("least"), least_story())


def test_the_page_loads_nothing_from_anywhere(full: Reader) -> None:
    loaded = [tag[key] or "" for _, tag in full.tags for key in ("src", "href") if key in tag]
    assert loaded
    assert all(address.startswith(("#", "data:")) for address in loaded)
    own = full.source.replace(get_plotlyjs(), "")
    assert not re.search(r"https?:|@import|url\(", own)


def test_the_page_forbids_itself_to_load_anything(full: Reader) -> None:
    (policy,) = [tag["content"] for tag in full.all("meta") if "http-equiv" in tag]
    assert (policy or "").startswith("default-src 'none';")


def test_plotly_is_in_the_page_once(full: Reader) -> None:
    assert full.scripts[0] == get_plotlyjs()
    assert len(full.scripts) == 3


def test_all_sections_are_there_and_the_contents_lead_to_them(full: Reader) -> None:
    assert sections(full) == [*CLINICAL, *TECHNICAL]
    links = [tag["href"] for tag in full.all("a")]
    assert links == [f"#{key}" for key in [*CLINICAL, *TECHNICAL]]


def test_every_chart_has_a_place_and_every_place_a_chart(full: Reader) -> None:
    places = [tag["id"] for tag in full.all("div") if tag.get("class") == "chart"]
    assert places == [f"chart-{key}" for key in full.charts]
    assert {"roc", "benefit", "refer-0", "worse-auroc", "trajectory", "training"} < set(full.charts)


def test_the_engineers_part_is_folded(full: Reader) -> None:
    assert len(full.all("details")) == len(TECHNICAL)
    assert not any("open" in tag for tag in full.all("details"))


def test_an_external_evaluation_leaves_out_what_it_does_not_know(least: Reader) -> None:
    expected = ["ranking", "calibration", "confusion", "metrics", "classes"]
    assert sections(least) == expected
    assert "certified" not in least.text
    assert "sealed" not in least.text
    assert not re.search(r"\bnan\b|\bNone\b", least.text, re.IGNORECASE)


def test_an_operating_point_says_why_it_is_not_certified(full: Reader) -> None:
    assert "not certified: not certifiable with n₊ = 41" in full.text
    assert "certified: 117 of 120 were caught" in full.text
    assert "0.955 to 0.990, 90%" in full.text


def test_a_refer_band_marks_the_pair_of_thresholds_in_use(full: Reader) -> None:
    (ring,) = [line for line in full.charts["refer-0"]["data"] if line["name"] == "chosen"]
    assert (ring["x"], ring["y"]) == ([0.2, 0.2], [0.96, 0.9])


def test_a_band_that_is_not_on_the_front_is_not_marked(tmp_path: Path) -> None:
    front = {"band": full_story().refer_fronts["band"][1:]}
    page = page_of(tmp_path, full_story(refer_fronts=front))
    assert [line["name"] for line in page.charts["refer-0"]["data"]] == [
        "sensitivity",
        "specificity",
    ]


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    manifest = manifest_of(["benign", EVIL], EVIL, name=EVIL, gates=[EVIL])
    base = full_story()
    page = page_of(
        tmp_path,
        replace(
            base,
            manifest=manifest,
            evaluation=evaluation_of(manifest, skipped={EVIL: EVIL}),
            leaderboard=[LeaderboardRow(who=EVIL, what=EVIL, metrics={"auroc": est(0.5)})],
            curves=[Curve(EVIL, [{"nll": 1.0}], True)],
            candidate_names=[EVIL] * 3,
            examples=[Example(image=EVIL, label=EVIL, probability=0.5, thumbnail=PIXEL)],
            notes=[EVIL, "<i>"],
        ),
    )
    assert len(page.scripts) == 3
    assert "</script" not in page.scripts[1]
    assert [tag for tag in page.all("i") if "class" not in tag] == []
    assert page.text.count(EVIL) >= 15


def test_a_thumbnail_that_is_no_image_data_is_not_shown(tmp_path: Path) -> None:
    outside = Example(image="a", label="b", probability=0.5, thumbnail="https://else.where/a.jpg")
    page = page_of(tmp_path, full_story(examples=[outside]))
    assert page.all("img") == []
    assert "else.where" not in page.source


def test_a_long_list_of_skipped_images_is_cut_and_says_so(tmp_path: Path) -> None:
    skipped = {f"/data/{i}.jpg": "empty" for i in range(SKIPPED + 7)}
    base = least_story()
    evaluation = base.evaluation.model_copy(update={"skipped": skipped})
    page = page_of(tmp_path, replace(base, evaluation=evaluation))
    assert page.text.count(": empty") == SKIPPED
    assert "and 7 more" in page.text


def test_the_page_says_what_it_is_not(full: Reader, least: Reader) -> None:
    assert full.text.count(NOTICE) == least.text.count(NOTICE) == 2


def test_the_ensembles_row_stands_out(full: Reader) -> None:
    assert [tag for tag in full.all("tr") if tag.get("class") == "ours"] == [{"class": "ours"}]


def test_the_best_of_a_column_are_those_that_print_as_the_best() -> None:
    table = leaderboard_table(full_story().leaderboard)
    best = [[cell.text for cell in row if cell.tone == "best"] for row in table.rows]
    assert best == [["0.910"], ["0.910"], ["0.250"]]
    assert table.rows[0][-1].text == "–"
    assert table.numeric == [False, False, True, True, True]


def test_one_class_alone_has_no_curves(tmp_path: Path) -> None:
    base = full_story()
    page = page_of(tmp_path, replace(base, probs=base.probs[:3], labels=np.zeros(3, np.int64)))
    assert "roc" not in page.charts
    assert "reliability" in page.charts
