"""Warnings of an image: few pixels, blur, another kind of picture."""

import numpy as np
import pytest

from ensemble.profile import STATISTICS, build_profile, measure
from search.data.transforms import Preprocessing, prepare
from serving.scoring.quality import warnings_of
from tests.tiny import tiny_image

SHARP = np.arange(100, dtype=np.float64) + 20
PROFILE = build_profile(dict.fromkeys(STATISTICS, SHARP), SHARP / 200, "first")
FINE = dict.fromkeys(STATISTICS, 50.0)


def codes(
    size: tuple[int, int] = (600, 450), *, sharpness: float = 50.0, novel: bool | None = False
) -> list[str]:
    statistics = FINE | {"sharpness": sharpness}
    return [warning.code for warning in warnings_of(size, 224, statistics, PROFILE, novel)]


def test_a_good_image_has_no_warning() -> None:
    assert codes() == []


@pytest.mark.parametrize("size", [(223, 600), (600, 223), (1, 1)])
def test_a_side_shorter_than_a_members_square_is_low_resolution(size: tuple[int, int]) -> None:
    assert codes(size) == ["low_resolution"]


def test_as_many_pixels_as_a_member_sees_are_enough() -> None:
    assert codes((224, 224)) == []


def test_an_image_less_sharp_than_nearly_all_held_back_ones_is_blurred() -> None:
    assert PROFILE.blurred_below == 20
    assert codes(sharpness=19.99) == ["blurred"]
    assert codes(sharpness=20) == []


def test_an_image_unlike_the_training_images_is_not_a_lesion() -> None:
    assert codes(novel=True) == ["not_a_lesion"]
    assert codes(novel=None) == []


def test_every_fault_is_named_in_one_line_with_its_value_and_rule() -> None:
    found = warnings_of((100, 80), 224, FINE | {"sharpness": 3.14159}, PROFILE, True)
    assert [warning.code for warning in found] == ["low_resolution", "blurred", "not_a_lesion"]
    resolution, blur, lesion = (warning.detail for warning in found)
    assert "100x80" in resolution
    assert "224" in resolution
    assert "3.14" in blur
    assert "20" in blur
    assert "threshold" in lesion
    assert not any("\n" in warning.detail for warning in found)


def test_without_a_profile_blur_is_not_judged() -> None:
    assert warnings_of((600, 450), 224, {}, None, False) == []


def test_a_photograph_enlarged_from_few_pixels_is_blurred_against_real_detail() -> None:
    preprocessing = Preprocessing(size=64, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    rows = [measure(pixels) for pixels in noise]
    detailed = {name: np.array([row[name] for row in rows]) for name in STATISTICS}
    profile = build_profile(detailed, np.linspace(0, 1, 20), "first")
    smooth = measure(prepare(tiny_image(0, (640, 480)), preprocessing))
    found = warnings_of((640, 480), 64, smooth, profile, None)
    assert [warning.code for warning in found] == ["blurred"]
