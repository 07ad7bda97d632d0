"""The report, read with the standard library's parser."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from ensemble.bundle import Bundle, Manifest, Member, OperatingPoint
from ensemble.calibrate import Temperature
from ensemble.evaluate import Evaluation, assess
from ensemble.report import SKIPPED, Curve, leaderboard_cells, write_report
from search.data.transforms import Preprocessing
from search.params import Params
from tests.pages import Reader

EVIL = "</script><b>|*x*"
LABELS = np.array([0, 0, 0, 1, 1])
PROBS = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.1, 0.9]])
LEADERBOARD = [
    {"who": "ensemble", "what": "all members", "auroc": 0.91, "nll": 0.30, "ece": None},
    {"who": "best single", "what": "trial 4", "auroc": 0.9104, "nll": 0.35, "ece": None},
    {"who": "recipe vgg16", "what": "trial 2", "auroc": 0.85, "nll": 0.25, "ece": None},
]
CURVES = [
    Curve("trial 0", [{"nll": 0.7}, {"nll": 0.4}, {"lr": 0.1}], True),
    Curve("trial 1", [{"nll": 9}], False),
]


def manifest_of(classes: list[str], positive: str | None) -> Manifest:
    """A manifest with one member and, where a class is positive, two operating points."""
    member = Member(
        name="cnn_0",
        trial=0,
        params=Params(backbone="cnn"),
        preprocessing=Preprocessing(size=16, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)),
        weight=1,
        weights_file="members/cnn_0.safetensors",
        onnx_file="members/cnn_0.onnx",
        parity=1e-6,
    )
    return Manifest(
        name="tiny",
        version="1",
        created="2026-01-01T00:00:00+00:00",
        classes=classes,
        positive=positive,
        members=[member],
        calibrator=Temperature(temperature=1.3),
        operating_points=[point("screen", 0.15), point("sure", 0.85)] if positive else [],
        prevalence=dict.fromkeys(classes, 1 / len(classes)),
        provenance={"n_images": {"train": 1400, "test": 5}, "data_digest": "d1"},
        files={},
    )


def point(name: str, threshold: float) -> OperatingPoint:
    return OperatingPoint(
        name=name,
        threshold=threshold,
        target="sensitivity at least 0.95",
        sensitivity=1.0,
        specificity=0.5,
        sensitivity_interval=(0.7, 1.0),
        n_positive=12,
        n_negative=20,
        certified=name == "sure",
        reason="held back" if name == "sure" else "chosen and measured on the same images",
    )


def evaluation_of(manifest: Manifest, **more: Any) -> Evaluation:
    return assess(Bundle(Path(), manifest), PROBS, LABELS, **more)


BINARY = manifest_of(["benign", "malignant"], "malignant")
PLAIN = manifest_of(["benign", "malignant"], None)


def page_of(folder: Path, evaluation: Evaluation, manifest: Manifest | None, **more: Any) -> Reader:
    path = folder / "pages" / "report.html"
    write_report(path, evaluation, manifest, title="tiny 1: the sealed test", **more)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    return Reader(path.read_text(encoding="utf-8"))


@pytest.fixture
def full(tmp_path: Path) -> Reader:
    """Every section there is."""
    evaluation = evaluation_of(BINARY, skipped={"/data/a.jpg": "truncated"})
    return page_of(
        tmp_path, evaluation, BINARY, leaderboard=LEADERBOARD, curves=CURVES, notes=["Opened once."]
    )


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
    assert len(full.scripts[1]) < 30_000


def test_all_sections_and_figures_are_there(full: Reader) -> None:
    assert set(full.sections) == {
        *("leaderboard", "points", "figures", "metrics", "bundle", "classes", "skipped")
    }
    keys = ["roc", "recall", "reliability", "scores", "confusion", "training"]
    assert list(full.charts) == keys
    assert [t["id"] for t in full.all("div") if t.get("class") == "chart"] == [
        f"chart-{key}" for key in keys
    ]


def test_an_external_evaluation_has_no_leaderboard_no_curves_and_no_bundle(tmp_path: Path) -> None:
    page = page_of(tmp_path, evaluation_of(PLAIN), None)
    assert set(page.sections) == {"figures", "metrics", "classes"}
    assert "training" not in page.charts
    assert "skipped" not in page.text
    assert "certified" not in page.text


def test_every_figure_says_in_words_what_it_shows(full: Reader) -> None:
    captions = [tag["aria-label"] for tag in full.all("div") if tag.get("role") == "img"]
    assert captions == [
        "AUROC 0.833 (5 images, 2 malignant); the marks are the operating points.",
        "Average precision 0.833, where guessing reaches the prevalence, 0.400.",
        "Calibration error 0.300 of the probability of malignant: on the dotted line it comes true "
        "as often as it says; bars are 95% Clopper-Pearson intervals.",
        "From 0.150 on (screen), 2 of 2 malignant and 2 of the other 3 images count as malignant.",
        "The most probable class is the true one for 4 images (80%); each row's shares add up to "
        "100%.",
        "Validation log loss of all trials, 1 in the ensemble and 1 not; the lowest is 0.400, "
        "trial 0 in epoch 2.",
    ]
    assert all((caption or "") in full.text for caption in captions)


def test_an_operating_point_says_why_it_is_not_certified(full: Reader) -> None:
    assert "not certified: chosen and measured on the same images" in full.text
    assert [tag for tag in full.all("span") if tag.get("class") == "good"] == [{"class": "good"}]
    assert full.text.count("certified: held back") == 1
    assert "0.158 to 1.000" in full.text  # 2 of 2, Clopper-Pearson


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    manifest = manifest_of(["benign", EVIL], EVIL)
    evaluation = evaluation_of(manifest, skipped={EVIL: EVIL})
    board = [{"who": EVIL, "what": EVIL, "auroc": 0.5}]
    curves = [Curve(EVIL, [{"nll": 1.0}], True)]
    given = {"leaderboard": board, "curves": curves, "notes": [EVIL, "<i>"]}
    page = page_of(tmp_path, evaluation, manifest, **given)
    assert len(page.scripts) == 3
    assert page.all("i") == []
    assert "</script" not in page.scripts[1]
    assert page.text.count(EVIL) >= 10
    ticks = page.charts["confusion"]["layout"]["xaxis"]["ticktext"]
    assert ticks == ["benign", "&lt;/script&gt;&lt;b&gt;|*x*"]


def test_notes_and_skipped_images_are_listed(full: Reader) -> None:
    assert "Opened once." in full.text
    assert "/data/a.jpg: truncated" in full.text
    assert "1 image could not be read" in full.text


def test_a_long_list_of_skipped_images_is_cut_and_says_so(tmp_path: Path) -> None:
    skipped = {f"/data/{i}.jpg": "empty" for i in range(SKIPPED + 7)}
    page = page_of(tmp_path, evaluation_of(BINARY, skipped=skipped), BINARY)
    assert page.text.count(": empty") == SKIPPED
    assert "and 7 more" in page.text


def test_the_page_says_what_it_is_not(full: Reader) -> None:
    assert full.text.count("Educational and research use; not a medical device.") == 2


def test_the_ensembles_row_stands_out(full: Reader) -> None:
    assert [tag for tag in full.all("tr") if tag.get("class") == "ours"] == [{"class": "ours"}]


def test_the_best_of_a_column_are_those_that_print_as_the_best() -> None:
    cells = leaderboard_cells(LEADERBOARD)
    best = [[cell.text for cell in row if cell.is_best] for row in cells]
    assert best == [["0.910"], ["0.910"], ["0.250"]]
    assert cells[0][-1].text == "–"
    assert leaderboard_cells([]) == []


def test_one_class_alone_has_no_curves_and_dashes_for_what_is_undefined(tmp_path: Path) -> None:
    evaluation = assess(Bundle(Path(), BINARY), PROBS[:3], LABELS[:3])
    page = page_of(tmp_path, evaluation, BINARY)
    assert list(page.charts) == ["reliability", "scores", "confusion"]
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)
    assert "–" in page.text
