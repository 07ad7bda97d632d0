"""What images were like at build: the statistics, their deciles, and how drift is told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydantic import ValidationError

from ensemble.assemble import assemble
from ensemble.bundle import MANIFEST, Bundle, load_bundle
from ensemble.candidates import calibration_images, load_candidates
from ensemble.config import EnsembleConfig
from ensemble.manifest import Manifest
from ensemble.profile import STATISTICS, Gauge, Profile, build_profile, measure, psi, watched
from ensemble.runtime import Runtime
from ensemble.selection.results import Selection
from search.config import ExperimentConfig
from search.data.transforms import Preprocessing, decode, prepare
from search.study.records import StudyFolder
from tests.tiny import tiny_image, write_tiny_bundle

PREPROCESSING = Preprocessing(size=32, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
COUNTS = hnp.arrays(np.int64, 10, elements=st.integers(0, 500)).filter(lambda c: c.sum() > 0)


def flat(red: int, green: int, blue: int, *, side: int = 8) -> NDArray[np.uint8]:
    return np.full((side, side, 3), (red, green, blue), np.uint8)


def evenly(n: int, **changes: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {name: np.arange(n, dtype=np.float64) for name in STATISTICS} | changes


def profile_of(n: int = 100, **changes: NDArray[np.float64]) -> Profile:
    return build_profile(evenly(n, **changes), np.linspace(0, 1, n), "first")


def test_a_flat_image_has_its_colour_and_neither_contrast_nor_sharpness() -> None:
    found = measure(flat(200, 100, 50))
    assert tuple(found) == STATISTICS
    assert found["brightness"] == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, rel=1e-5)
    assert found["contrast"] == pytest.approx(0, abs=1e-3)
    assert found["saturation"] == 150
    assert found["sharpness"] == 0
    assert found["red_blue"] == pytest.approx(201 / 51)


def test_contrast_is_the_deviation_of_the_luminance() -> None:
    pixels = flat(0, 0, 0)
    pixels[:, :4] = 100
    assert measure(pixels)["contrast"] == pytest.approx(50, rel=1e-5)


def test_sharpness_is_the_variance_of_the_green_laplacian() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    green = pixels[..., 1].astype(float)
    laplacian = [
        green[y - 1, x] + green[y + 1, x] + green[y, x - 1] + green[y, x + 1] - 4 * green[y, x]
        for y in range(1, 19)
        for x in range(1, 29)
    ]
    assert measure(pixels)["sharpness"] == pytest.approx(np.var(laplacian), rel=1e-5)


@pytest.mark.parametrize("side", [32, 224, 225, 337, 512])
def test_blur_makes_an_image_less_sharp_and_little_else(side: int) -> None:
    image = tiny_image(1, (side, side))
    noise = np.random.default_rng(0).integers(-20, 21, (side, side, 1))
    sharp = (np.asarray(image).astype(int) + noise).clip(0, 255).astype(np.uint8)
    found = measure(sharp)
    blurred = measure(_blur(sharp))
    assert blurred["sharpness"] < 0.1 * found["sharpness"]
    assert blurred["brightness"] == pytest.approx(found["brightness"], rel=0.02)
    assert blurred["red_blue"] == pytest.approx(found["red_blue"], rel=0.02)


def _blur(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))


@pytest.mark.parametrize("side", [224, 512])
def test_skipping_rows_and_columns_of_a_large_image_changes_little(side: int) -> None:
    pixels = np.asarray(tiny_image(2, (side, side)))
    found = measure(pixels)
    luminance = pixels @ np.array([0.299, 0.587, 0.114])
    assert found["brightness"] == pytest.approx(luminance.mean(), rel=0.02)
    assert found["contrast"] == pytest.approx(luminance.std(), rel=0.02)


@settings(deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(3, 12), st.integers(3, 12), st.just(3))))
def test_statistics_are_numbers_of_their_range_for_any_pixels(pixels: NDArray[np.uint8]) -> None:
    found = measure(pixels)
    assert 0 <= found["brightness"] <= 255.001
    assert 0 <= found["contrast"] <= 127.6
    assert 0 <= found["saturation"] <= 255
    assert 0 <= found["sharpness"] <= 1020**2
    assert 1 / 256 <= found["red_blue"] <= 256


def test_deciles_divide_distinct_values_into_tenths() -> None:
    profile = profile_of(100)
    assert profile.n == 100
    assert profile.statistics["brightness"].shares == pytest.approx([0.1] * 10)
    assert profile.statistics["brightness"].edges == pytest.approx(np.arange(1, 10) * 9.9)
    assert profile.probability.shares == pytest.approx([0.1] * 10)


def test_ties_make_the_shares_unequal() -> None:
    values = np.repeat([0.0, 1.0], [75, 25])
    shares = profile_of(100, saturation=values).statistics["saturation"].shares
    assert sum(share > 0 for share in shares) == 2
    assert sorted(shares)[-2:] == [0.25, 0.75]


def test_a_statistic_that_never_changes_has_one_bin() -> None:
    gray = profile_of(50, red_blue=np.ones(50)).statistics["red_blue"]
    assert gray.shares == [0] * 9 + [1]


@settings(deadline=None)
@given(st.integers(1, 400))
def test_at_most_one_held_back_image_in_a_hundred_counts_as_blurred(n: int) -> None:
    sharpness = np.random.default_rng(n).lognormal(3, 1, n)
    below = (sharpness < profile_of(n, sharpness=sharpness).blurred_below).sum()
    assert below <= 0.01 * n
    assert below >= (n - 1) // 100


def test_the_watched_probability_is_of_the_positive_class_or_the_most_probable() -> None:
    probs = np.array([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    assert watched(probs, 1).tolist() == [0.2, 0.3]
    assert watched(probs, None).tolist() == [0.7, 0.4]


@settings(deadline=None)
@given(COUNTS)
def test_nothing_moved_is_an_index_of_zero(counts: NDArray[np.int64]) -> None:
    assert psi(counts / counts.sum(), counts) == pytest.approx(0, abs=1e-12)


@settings(deadline=None)
@given(COUNTS, COUNTS)
def test_the_index_is_finite_never_below_zero_and_blind_to_the_order_of_bins(
    expected: NDArray[np.int64], found: NDArray[np.int64]
) -> None:
    shares = expected / expected.sum()
    value = psi(shares, found)
    assert np.isfinite(value)
    assert value >= 0
    assert psi(shares[::-1], found[::-1]) == pytest.approx(value)


def test_the_index_of_many_images_is_the_textbooks() -> None:
    shares, found = np.array([0.5, 0.5]), np.array([800_000, 200_000])
    assert psi(shares, found) == pytest.approx(0.3 * np.log(1.6) - 0.3 * np.log(0.4), rel=1e-4)


def test_an_image_in_a_bin_that_was_empty_weighs_little_alone_and_much_in_numbers() -> None:
    shares = np.array([0.0, 1.0])
    assert psi(shares, np.array([1, 99])) < 0.02
    assert psi(shares, np.array([50, 50])) > 1


def test_the_index_without_drift_is_as_large_as_its_docstring_says() -> None:
    rng = np.random.default_rng(0)
    draws = [
        (rng.multinomial(500, [0.1] * 10) / 500, rng.multinomial(400, [0.1] * 10))
        for _ in range(400)
    ]
    mean = np.mean([psi(shares, found) for shares, found in draws])
    assert mean == pytest.approx(9 * (1 / 400 + 1 / 500), rel=0.1)


def test_a_gauge_keeps_the_order_of_images_and_lets_them_pass() -> None:
    gauge, images = Gauge(PREPROCESSING), [tiny_image(seed) for seed in range(3)]
    assert all(gauge(images[i], i) is images[i] for i in (2, 0, 1))
    expected = [measure(prepare(image, PREPROCESSING))["sharpness"] for image in images]
    assert gauge.columns()["sharpness"].tolist() == expected


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"edges": list(range(9, 0, -1))}, r"edges must not fall"),
        ({"edges": [0.0] * 8}, r"at least 9 items"),
        ({"edges": [float("nan")] * 9}, r"finite number"),
        ({"shares": [0.2] * 10}, r"shares must sum to 1"),
        ({"shares": [float("nan")] * 10}, r"shares"),
    ],
)
def test_deciles_that_are_none_are_refused(changes: dict[str, Any], problem: str) -> None:
    document = profile_of().model_dump()
    document["probability"] |= changes
    with pytest.raises(ValidationError, match=problem):
        Profile.model_validate(document)


def test_a_profile_lacks_no_statistic_and_has_none_that_is_not_measured() -> None:
    document = profile_of().model_dump()
    document["statistics"]["smell"] = document["statistics"].pop("contrast")
    with pytest.raises(ValidationError, match=r"must be brightness, contrast"):
        Profile.model_validate(document)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def test_a_bundle_gives_its_profile_back(tiny: Path) -> None:
    profile = load_bundle(tiny).manifest.profile
    assert profile is not None
    assert (profile.member, profile.n) == ("cnn_0", 20)
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


def test_a_bundle_of_before_profiles_loads(tiny: Path) -> None:
    document = json.loads((tiny / MANIFEST).read_text())
    del document["profile"]
    assert Manifest.model_validate(document).profile is None


def test_a_profile_names_one_of_the_members(tiny: Path) -> None:
    document = json.loads((tiny / MANIFEST).read_text())
    document["profile"]["member"] = "nobody"
    with pytest.raises(ValidationError, match=r"profile does not fit the rest"):
        Manifest.model_validate(document)


def test_the_profile_of_a_build_is_of_all_held_back_images_as_they_are_served(
    study: ExperimentConfig, tmp_path: Path
) -> None:
    folder = StudyFolder(study.study_folder)
    weights = [0.0, 0.5, 0.5]
    selection = Selection(choice="all", weights=weights, choices=[], trajectory=[], pairs=[])
    ensemble = EnsembleConfig(test_time_augmentation="none", out_of_distribution=None)
    built = assemble(study, ensemble, load_candidates(folder), selection, tmp_path)
    profile, members = built.manifest.profile, built.manifest.members
    assert profile is not None
    cheapest = min(range(2), key=lambda i: members[i].latency_ms)
    assert profile.member == members[cheapest].name

    runtime = Runtime(Bundle(tmp_path, built.manifest))
    images = [decode(Path(path)) for path in calibration_images(folder)["path"]]
    rows = [measure(runtime.prepare(image)[cheapest]) for image in images]
    statistics = {name: np.array([row[name] for row in rows]) for name in STATISTICS}
    served = np.concatenate([runtime.predict([image]).probs[:, 1] for image in images])
    again = build_profile(statistics, served, profile.member)
    assert again.statistics == profile.statistics
    assert again.blurred_below == profile.blurred_below
    assert again.n == profile.n
    assert again.probability.edges == pytest.approx(profile.probability.edges, abs=1e-6)
