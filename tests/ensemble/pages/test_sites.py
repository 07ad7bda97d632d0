"""The page about sites left out, read with the standard library's parser."""

from pathlib import Path
from typing import Any

import pytest

from ensemble.calibration.calibrators import Temperature
from ensemble.evaluation.results import Estimate, Estimates
from ensemble.pages.sites import forests, lines, plain_words, threshold_words, write_sites_page
from ensemble.sites.results import Held, Side, SiteResult, SitesResult, summary
from tests.ensemble.pages.stories import EVIL, est
from tests.pages import Reader
from tests.points import a_point


def metrics(auroc: float, sensitivity: float | None) -> Estimates:
    found = {"auroc": est(auroc, auroc - 0.05, auroc + 0.05), "nll": est(0.3, 0.2, 0.4)}
    if sensitivity is not None:
        found["sensitivity"] = est(sensitivity, sensitivity - 0.1, min(sensitivity + 0.04, 1))
    return found


def side(auroc: float, sensitivity: float | None) -> Side:
    positive = None if sensitivity is None else 12
    share = None if positive is None else 0.1
    return Side(
        n=120,
        n_groups=110,
        n_positive=positive,
        prevalence=share,
        metrics=metrics(auroc, sensitivity),
    )


def site(
    name: str, held: Held | None, *, away: float | None = 0.96, certified: bool = True, **more: Any
) -> SiteResult:
    auroc: Estimate = est(-0.02, -0.1, 0.05)
    given: dict[str, Any] = {
        "site": name,
        "digest": "0" * 64,
        "n_trained": 900,
        "n_dropped": 3,
        "calibrator": Temperature(temperature=1.3),
        "point": None if away is None else a_point(certified=certified, aim=0.95),
        "away": side(0.88, away),
        "home": side(0.9, None if away is None else 0.97),
        "difference": {"auroc": auroc, "sensitivity": est(-0.2, -0.4, -0.1)},
        "held": held,
        "seconds": 3.0,
    }
    return SiteResult(**(given | more))


def whole(*sites: SiteResult, positive: str | None = "malignant") -> SitesResult:
    means, worst = summary(sites)
    return SitesResult(
        name="tiny",
        column="hospital",
        trial=7,
        backbone="cnn",
        classes=["benign", "malignant"],
        positive=positive,
        promise="sensitivity at least 0.95, then most specificity",
        min_cases=20,
        n_unknown=4,
        not_left_out={EVIL: "3 images, fewer than 20"},
        sites=list(sites),
        mean=means,
        worst=worst,
    )


KEPT = site("A", "yes")
LOST = site("B", "no", away=0.7)
FEW = site("C", "too few")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    path = tmp_path_factory.mktemp("sites") / "sites.html"
    write_sites_page(path, whole(KEPT, LOST, FEW))
    assert [entry.name for entry in path.parent.iterdir()] == ["sites.html"]
    return Reader(path.read_text(encoding="utf-8"))


def test_the_page_loads_nothing_and_runs_nothing(page: Reader) -> None:
    policy = page.all("meta")[1]["content"] or ""
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:"
    assert not page.scripts
    assert not page.all("img")
    assert all((link.get("href") or "").startswith("data:") for link in page.all("link"))
    assert "http" not in page.text


def test_the_page_says_what_it_is_not(page: Reader) -> None:
    assert page.text.count("not a medical device") == 2
    assert "4 images of no known hospital" in page.text
    assert "The sealed test was not opened" in page.text


def test_names_are_text_and_never_markup(page: Reader) -> None:
    assert f"{EVIL}: 3 images, fewer than 20" in page.text


def test_plain_words_count_the_sites_that_kept_the_promise(page: Reader) -> None:
    text = (
        "The threshold certified on the others kept its sensitivity of 0.95 in 1 of 3 sites. It "
        "fell short in 1: B. In 1 there are too few cases to tell: C."
    )
    assert text in page.text
    assert plain_words(whole(KEPT, LOST, FEW))[0] == ("Would its threshold hold?", text, "warn")
    assert plain_words(whole(KEPT, FEW))[0][2] == ""


@pytest.mark.parametrize(("certified", "told"), [(True, "in only 1 of them"), (False, "in none")])
def test_a_threshold_that_is_not_certified_is_not_called_so(certified: bool, told: str) -> None:
    found = whole(site("A", "yes", certified=certified), site("B", "yes", certified=False))
    text = threshold_words(found)
    assert text.startswith("The threshold chosen on the others kept its sensitivity of 0.95 in 2")
    assert f"The others had the cases to certify it {told}" in text


def test_what_is_clearly_worse_is_named_and_coloured() -> None:
    found = whole(KEPT, FEW)
    heading, text, tone = plain_words(found)[-1]
    assert (heading, tone) == ("Where it does worse than at home", "warn")
    assert text.endswith("A (sensitivity); C (sensitivity).")
    tones = [line.tones for line in lines(found, ["auroc", "sensitivity"]) if line.tones]
    assert tones == [["", "", "", "warn"]] * 2


def test_a_forest_has_both_sides_of_each_site_and_the_target() -> None:
    auroc, sensitivity = forests(whole(KEPT, LOST))
    assert [(m.row.group, m.row.label) for m in auroc.marks] == [
        *(("A", "left out"), ("A", "at home"), ("B", "left out"), ("B", "at home"))
    ]
    assert auroc.reference is None
    assert sensitivity.reference is not None
    assert [m.row.tone for m in sensitivity.marks] == ["", "pale", "warn", "pale"]
    assert sensitivity.name == "Sensitivity at the others' threshold"


def test_the_table_ends_with_the_mean_and_the_worst_site(page: Reader) -> None:
    *_, mean, worst = lines(whole(KEPT, LOST, FEW), ["auroc", "sensitivity"])
    assert mean.cells[3].startswith("0.873\n(")
    assert worst.cells == ["", "", "0.880\nA", "0.700\nB"]
    assert "worst site" in page.text


def test_without_a_positive_class_there_is_no_threshold(tmp_path: Path) -> None:
    found = whole(site("A", None, away=None), site("B", None, away=None), positive=None)
    write_sites_page(tmp_path / "sites.html", found)
    page = Reader((tmp_path / "sites.html").read_text(encoding="utf-8"))
    assert "Would its threshold hold?" not in page.text
    assert "Certificate" not in page.text
    assert len(forests(found)) == 1
