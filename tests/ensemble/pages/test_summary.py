"""What a clinician reads first."""

from dataclasses import replace

import pytest

from ensemble.evaluation.results import Verdict
from ensemble.pages.summary import of_100, promise, summary_of, weak_groups
from tests.ensemble.pages.stories import (
    est,
    evaluation_of,
    full_story,
    least_story,
    manifest_of,
    operating_point,
    result_of,
)


def test_rates_are_told_of_a_hundred_with_their_interval() -> None:
    (_, text, _), *_ = summary_of(full_story())
    assert "of 100 malignant images it would call positive about 96 (90 to 100)" in text
    assert "Of 100 benign images it would clear about 75 (70 to 80)" in text
    assert "Where 40% of images are malignant" in text


def test_an_interval_is_rounded_outwards() -> None:
    assert of_100(est(0.955, 0.909, 0.991)) == "96 (90 to 100)"
    assert of_100(est(0.7, 0.55, 0.85)) == "70 (55 to 85)"
    assert of_100(est(0.5)) == "50"
    assert of_100(est(None)) == "an unknown number"


@pytest.mark.parametrize(("name", "tone"), [("screen", "good"), ("other", "warn")])
def test_a_point_is_promised_or_it_is_said_why_not(name: str, tone: str) -> None:
    manifest = manifest_of(["a", "b"], "b", operating_points=[operating_point(name, 0.1)])
    story = full_story(manifest=manifest, evaluation=evaluation_of(manifest))
    (told,) = [part for part in summary_of(story) if part[0] == "What is promised"]
    assert told[2] == tone
    assert ("not a promise" in told[1]) == (tone == "warn")


def test_the_reason_ends_the_sentence_once() -> None:
    point = result_of(operating_point("other", 0.1)).model_copy(update={"reason": "too few."})
    assert "not certified: too few. The numbers" in promise(point)


def test_a_refer_band_says_how_many_go_to_a_person() -> None:
    manifest = manifest_of(["a", "b"], "b", operating_points=[operating_point("band", 0.8, 0.3)])
    story = full_story(manifest=manifest, evaluation=evaluation_of(manifest))
    text = summary_of(story)[0][1]
    assert "call positive or refer to a person about 96" in text
    assert "It refers 20% of all images to a person." in text


def test_only_a_build_calls_its_images_sealed() -> None:
    sealed, external = (
        next(text for heading, text, _ in summary_of(story) if "tested" in heading)
        for story in (full_story(), least_story())
    )
    assert "On 5 images of 4 patients or lesions, 2 of them malignant. They were sealed" in sealed
    assert "1 image could not be read" in sealed
    assert external == "On 5 images of 4 patients or lesions."


def test_a_subgroup_whose_interval_stays_below_is_named() -> None:
    text = weak_groups(full_story())
    assert "site palms (70% of 30 images)" in text
    assert "female" not in text
    assert weak_groups(least_story()) == ""


def test_a_rule_that_did_not_hold_is_named() -> None:
    failed = Verdict(gate="nll", rule="0.4 is above 0.3", holds=False)
    headings = [heading for heading, _, _ in summary_of(full_story(verdicts=[failed]))]
    assert "What did not hold" in headings
    assert "What did not hold" not in [heading for heading, _, _ in summary_of(full_story())]


def test_without_a_positive_class_the_accuracy_is_told() -> None:
    text = summary_of(least_story())[0][1]
    assert text.endswith("its most probable class is right for about 80 (60 to 100).")
    base = least_story()
    bare = base.evaluation.model_copy(update={"metrics": {}})
    assert summary_of(replace(base, evaluation=bare))[0][1].endswith("a, b, c.")
