"""The page of a study, read with the standard library's parser."""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from plotly.offline import get_plotlyjs

from search.errors import StudyError
from search.report.page import SHOWN, write_study_report
from search.report.results import size
from search.study.records import StudyFolder, TrialRecord
from tests.pages import Reader
from tests.search.report.studies import every_kind, many_trials, optuna_study, trial, write_study

EVIL = "</script><b>|*x*"
SECTIONS = ["leaderboard", "history", "importance", "coordinates", "curves", "front", "cost"]
SECTIONS += ["folds", "failures"]


def page_of(
    folder: Path,
    records: list[TrialRecord],
    study: optuna.Study | None = None,
    **changes: Any,
) -> Reader:
    written = write_study(folder / "out" / "study", records, **changes)
    return read_page(folder, written, study)


def read_page(folder: Path, study: StudyFolder, storage: optuna.Study | None = None) -> Reader:
    path = folder / "pages" / "report.html"
    write_study_report(path, study, storage)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture
def full(tmp_path: Path) -> Reader:
    """Every section there is."""
    records = every_kind()
    bound = {"constraints": {"params_m": 2.0}, "fidelity": {"max_epochs": 9}}
    return page_of(tmp_path, records, optuna_study(records), **bound)


def test_the_page_loads_nothing_from_anywhere(full: Reader) -> None:
    loaded = [tag[key] or "" for _, tag in full.tags for key in ("src", "href") if key in tag]
    assert loaded == ["data:,"]
    own = full.source.replace(get_plotlyjs(), "")
    assert not re.search(r"https?:|@import|url\(", own)


def test_the_page_forbids_itself_to_load_anything(full: Reader) -> None:
    (policy,) = [tag["content"] for tag in full.all("meta") if "http-equiv" in tag]
    assert (policy or "").startswith("default-src 'none'; script-src 'unsafe-inline'")
    assert "connect-src" not in (policy or "")


def test_plotly_is_in_the_page_once(full: Reader) -> None:
    assert full.scripts[0] == get_plotlyjs()
    assert len(full.scripts) == 3


def test_all_sections_and_figures_are_there(full: Reader) -> None:
    assert full.sections == SECTIONS
    keys = ["history", "importance", "coordinates", "curves", "front-0", "timeline", "times"]
    keys += ["folds"]
    assert list(full.charts) == keys
    assert [t["id"] for t in full.all("div") if t.get("class") == "chart"] == [
        f"chart-{key}" for key in keys
    ]


def test_the_head_says_what_was_searched_and_what_it_cost(full: Reader) -> None:
    said = [
        "benign, malignant (positive)",
        "train 1,400, calibration 300, test 400, dropped 7",
        "Log loss, lower is better",
        "9 of a budget of 12: 5 complete, 2 pruned, 2 failed, 1 done again, 1 running",
        "1.7 min of wall time, 0.10 trial-hours, 6 finalist's folds included, 0.75 GPU-hours",
        "weights 0 bytes, probabilities 0 bytes, storage 0 bytes, rest ",
        "python 3.11, torch 2.15",
    ]
    assert [text for text in said if text not in full.text] == []
    assert full.text.count("Educational and research use; not a medical device.") == 2


def test_every_section_says_how_to_read_it(full: Reader) -> None:
    said = [
        "6 of 11 trials have a rank, by log loss at the best epoch on fold 0.",
        "Params in millions ≤ 2: 1 trial above, without a rank.",
        "The best is trial 3 with 0.300.",
        "(PED-ANOVA, by log loss)",
        "The best 50% of 5 complete trials, too few for more than a hint.",
        "Dotted are the rungs (epoch 1, 3), where about one in 3 goes on.",
        "It holds 1 trial of 6 feasible ones. Log loss: less is better.",
        "0% went to starting, 72.1% to training, 9% to validation and 18.9% to the rest",
        "Fold 0 chose them, so its value flatters",
        "They deviate by 0.020 on average",
    ]
    assert [text for text in said if text not in full.text] == []


def test_failures_are_grouped_and_those_done_again_are_said_to_be(full: Reader) -> None:
    assert "2 × the loss is nan in epoch 1; lower lr" in full.text
    assert "1 × done again: the worker died" in full.text
    assert "trial 5 (sampled): the loss is nan in epoch 2; lower lr" in full.text


def test_a_study_that_has_just_begun_says_so_in_every_section(tmp_path: Path) -> None:
    page = page_of(tmp_path, [], seconds=None)
    assert page.sections == SECTIONS
    assert page.charts == {}
    said = ["No trial has begun yet.", "No constraint was set.", "wall time not recorded"]
    said += ["The study's storage was not opened.", "No trial has finished an epoch yet."]
    said += ["No time has been recorded yet.", "No finalist was trained on another fold."]
    said += ["No trial failed."]
    assert [text for text in said if text not in page.text] == []
    assert page.text.count("No trial has a value yet.") == 3


def test_three_trials_make_a_page(tmp_path: Path) -> None:
    records = [trial(i, [0.9 - i / 10, 0.5]) for i in range(3)]
    page = page_of(tmp_path, records, optuna_study(records))
    assert "It takes 4 complete trials, there are 3." in page.text
    assert {*page.charts} >= {"history", "coordinates", "curves", "front-0", "times"}
    assert "Show all" not in page.text


def test_many_classes_without_a_positive_one_have_no_thresholds(tmp_path: Path) -> None:
    page = page_of(tmp_path, many_trials(20), classes=["a", "b", "c"], positive=None)
    assert "a, b, c" in page.text
    assert "hreshold" not in page.text


def test_a_thousand_trials_make_a_light_page_with_all_of_them(tmp_path: Path) -> None:
    page = page_of(tmp_path, many_trials(1000))
    assert len(page.source.encode()) < 12_000_000
    assert len(page.all("tr")) == 1001
    assert "Show all 1,000" in page.text
    assert f"nth-child(n + {SHOWN + 1})" in page.source
    assert all(len(chart["data"]) < 10 for chart in page.charts.values())


def test_several_objectives_have_a_front_each_with_the_first(tmp_path: Path) -> None:
    records = [
        trial(i, [0.5 - i / 10], value=0.7, values={"auroc": 0.7, "nll": 0.5, "params_m": i + 1.0})
        for i in range(3)
    ]
    page = page_of(tmp_path, records, objective=["auroc", "nll", "params_m"])
    assert {"front-0", "front-1"} <= {*page.charts}
    assert "AUROC, higher is better; Log loss, lower is better; Params in millions" in page.text


def test_without_a_known_cost_the_front_is_against_time(tmp_path: Path) -> None:
    page = page_of(tmp_path, [trial(0, [0.5], costs={}), trial(1, [0.4], costs={})])
    axis = page.charts["front-0"]["layout"]["xaxis"]["title"]["text"]
    assert axis == "Seconds of training"


def test_where_no_trial_is_feasible_it_is_said(tmp_path: Path) -> None:
    records = [trial(i, [0.5], violations={"ece": 0.1}) for i in range(2)]
    page = page_of(tmp_path, records, constraints={"ece": 0.05})
    assert (
        "Calibration error (ECE) ≤ 0.05: 2 trials above, without a rank. No trial is" in page.text
    )
    assert "0 of 2 trials have a rank" in page.text


def test_pauses_are_told(tmp_path: Path) -> None:
    later = trial(1, [0.4], started="2026-01-02T00:00:00+00:00")
    page = page_of(tmp_path, [trial(0, [0.5]), later])
    assert "1 pause of together 24.0 h" in page.text


def test_a_damaged_config_costs_only_what_it_would_tell(tmp_path: Path) -> None:
    study = write_study(tmp_path / "out" / "study", every_kind())
    (study.path / "config.yaml").write_text("name: [")
    page = read_page(tmp_path, study)
    assert page.text.count("config.yaml cannot be read") == 3
    assert "coordinates" in page.charts


def test_a_damaged_clock_is_no_wall_time(tmp_path: Path) -> None:
    study = write_study(tmp_path / "out" / "study", [])
    (study.path / "clock.json").write_text("[]")
    assert "wall time not recorded" in read_page(tmp_path, study).text


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no study here; run consilium search first"):
        write_study_report(tmp_path / "report.html", StudyFolder(tmp_path), None)
    assert not (tmp_path / "report.html").exists()


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    evil = {"recipe": EVIL, "worker": f"{EVIL}:1", "params": {"backbone": EVIL}}
    records = [trial(i, [0.5 + i], **evil) for i in range(2)]
    records.append(trial(2, [], status="failed", error=EVIL, worker=None))
    page = page_of(tmp_path, records, classes=["benign", EVIL], positive=EVIL)
    assert len(page.scripts) == 3
    assert page.all("b") == []
    assert "</script" not in page.scripts[1]
    assert page.text.count(EVIL) >= 6
    ticks = page.charts["timeline"]["layout"]["yaxis"]["ticktext"]
    assert ticks == ["&lt;/script&gt;&lt;b&gt;|*x* 1"]


def test_bytes_are_printed_in_the_unit_that_reads() -> None:
    given = (0, 999, 1_500, 2_340_000, 5_000_000_000, 7_100_000_000_000)
    assert [size(n) for n in given] == [
        *("0 bytes", "999 bytes", "1.5 kB", "2.3 MB", "5.0 GB", "7.1 TB")
    ]
