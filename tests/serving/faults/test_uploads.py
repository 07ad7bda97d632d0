"""A thousand uploads that are wrong in some way, through a real server."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import serving.problems
from serving.scoring.service import Service
from tests.serving.faults.malformed import KINDS, Upload, draw_upload, seeded
from tests.serving.faults.servers import served
from tests.tiny import tiny_bytes

COUNT, WARM = 1_000, 200
GROWTH_MB = 40
REFUSED = {
    (400, "malformed_body"),
    (413, "too_large"),
    (413, "too_many_images"),
    (413, "too_many_pixels"),
    (415, "unsupported_type"),
    (422, "no_image"),
    (422, "damaged_image"),
}


@pytest.fixture(scope="module")
def url(quiet: Service) -> Iterator[str]:
    with served(quiet) as url:
        yield url


def documented() -> set[tuple[int, str]]:
    """Statuses and codes as the docstring of serving.problems lists them."""
    found, status = set(), 0
    for word in re.findall(r"\d{3}|[a-z_]+", str(serving.problems.__doc__).split("\n\n")[1]):
        if word.isdigit():
            status = int(word)
        else:
            found.add((status, word))
    return found


def resident_mb() -> float:
    """Of this process, now."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def predictions(http: httpx.Client) -> Any:
    """Of a good image."""
    return http.post("/v1/predict", content=tiny_bytes(3)).json()["predictions"]


def answered(http: httpx.Client, upload: Upload) -> tuple[int, str]:
    """Status and problem code."""
    headers = {"content-type": upload.content_type}
    answer = http.post("/v1/predict", content=upload.body, headers=headers)
    if answer.status_code == 200:
        return 200, ""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["status"] == answer.status_code
    assert len(problem["detail"]) < 400
    return answer.status_code, problem["code"]


def test_wrong_uploads_get_documented_refusals_and_leave_nothing_behind(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = seeded(7)
    found: dict[str, Counter[tuple[int, str]]] = {kind: Counter() for kind in KINDS}
    # Whoever makes a temporary file here fails, and answers 500.
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with httpx.Client(base_url=url, trust_env=False) as http:
        first, warm = predictions(http), 0.0
        for number in range(COUNT):
            if number == WARM:
                warm = resident_mb()
            upload = draw_upload(draw)
            found[upload.kind][answered(http, upload)] += 1
            if number % 20 == 0:
                assert predictions(http) == first, upload.kind
        growth = resident_mb() - warm
    codes = set().union(*found.values()) - {(200, "")}
    assert codes == REFUSED, {kind: dict(counts) for kind, counts in found.items()}
    assert codes <= documented()
    assert growth < GROWTH_MB


@pytest.mark.parametrize("kind", ["bomb", "empty", "text_bomb", "large", "promise"])
def test_what_is_no_image_is_never_scored(url: str, kind: str) -> None:
    draw = seeded(1)
    with httpx.Client(base_url=url, trust_env=False) as http:
        for _ in range(20):
            upload = Upload(kind, "image/png", KINDS[kind](draw))
            assert answered(http, upload)[0] in (413, 415, 422)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_cut_off_anywhere_is_never_scored(url: str, kind: str) -> None:
    file = tiny_bytes(2, kind=kind)  # the last bytes of a PNG are no pixels
    with httpx.Client(base_url=url, trust_env=False) as http:
        for count in range(1, len(file) - 20, 37):
            upload = Upload("truncated", "", file[:count])
            assert answered(http, upload)[0] in (415, 422), count


@pytest.mark.parametrize("kind", ["mode", "exif"])
def test_unusual_but_whole_images_are_scored(url: str, kind: str) -> None:
    draw = seeded(1)
    with httpx.Client(base_url=url, trust_env=False) as http:
        for _ in range(20):
            assert answered(http, Upload(kind, "image/png", KINDS[kind](draw))) == (200, "")


def test_the_same_seed_draws_the_same_uploads() -> None:
    once, again = ([draw_upload(draw) for _ in range(100)] for draw in (seeded(3), seeded(3)))
    assert once == again
