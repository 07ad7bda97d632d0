import asyncio
import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive

from search.data.transforms import decode
from serving.config import ServingConfig
from serving.http.body import Body, Room
from serving.http.images import check_type, read_images
from serving.http.multipart import MAX_OTHERS
from serving.images import decode_image
from serving.problems import ProblemError
from tests.tiny import tiny_bytes, tiny_image

CONFIG = ServingConfig(
    bundle=Path("bundle"), max_image_bytes=8_000, max_body_bytes=12_000, max_images=2
)
MULTIPART = "multipart/form-data; boundary=cut"


async def images_of(kind: str | None, receive: Receive) -> list[bytes]:
    body = Body(receive, limit=CONFIG.max_body_bytes, seconds=10, room=Room(1_000_000))
    return await read_images(kind or "", body.chunks(), CONFIG)


def read(kind: str | None, chunks: Sequence[bytes]) -> list[bytes]:
    left = list(chunks)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    return asyncio.run(images_of(kind, receive))


def refusal(kind: str | None, *chunks: bytes) -> tuple[int, str]:
    with pytest.raises(ProblemError) as caught:
        read(kind, chunks)
    return caught.value.status, caught.value.code


def part(content: bytes, name: str = "image") -> bytes:
    head = f'--cut\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
    return head.encode() + content + b"\r\n"


@pytest.mark.parametrize("kind", ["image/png", "Image/JPEG; q=1", "application/octet-stream", None])
def test_a_raw_body_is_one_image_whatever_its_type_says(kind: str | None) -> None:
    png = tiny_bytes()
    assert read(kind, [png[:7], b"", png[7:]]) == [png]


def test_parts_are_counted_whatever_they_are_named() -> None:
    others = [part(b"", name="note")] * MAX_OTHERS
    images = [part(tiny_bytes())] * CONFIG.max_images
    assert len(read(MULTIPART, [*others, *images, b"--cut--\r\n"])) == CONFIG.max_images
    assert refusal(MULTIPART, *others, *images, part(b"", name="note")) == (413, "too_large")


@given(st.integers(1, 400))
def test_parts_are_the_same_however_the_body_is_cut(size: int) -> None:
    files = [tiny_bytes(1), tiny_bytes(2, kind="WEBP")]
    body = part(files[0]) + part(b"left out", "note") + part(files[1]) + b"--cut--\r\n"
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    assert read(MULTIPART, chunks) == files


def test_nothing_is_read_past_the_limit() -> None:
    taken = 0

    async def receive() -> dict[str, object]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": bytes(5_000), "more_body": True}

    with pytest.raises(ProblemError, match="the image has more than 8000 bytes"):
        asyncio.run(images_of("image/jpeg", receive))
    assert taken == 2


def test_limits_hold_for_each_part_their_number_and_the_whole_body() -> None:
    small, end = part(tiny_bytes()), b"--cut--\r\n"
    assert refusal(MULTIPART, part(bytes(8_001)), end) == (413, "too_large")
    assert refusal(MULTIPART, small, small, small, end) == (413, "too_many_images")
    assert refusal(MULTIPART, part(bytes(13_000), "note"), end) == (413, "too_large")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MULTIPART, part(tiny_bytes())),
        (MULTIPART, b"no boundary at all"),
        ("multipart/form-data; boundary=" + "x" * 1000, b""),
        ("multipart/form-data", b""),
    ],
    ids=["ends early", "no boundary", "long boundary", "unnamed boundary"],
)
def test_a_broken_multipart_body_is_refused(kind: str, body: bytes) -> None:
    assert refusal(kind, body) == (400, "malformed_body")


def test_a_body_without_an_image_is_refused() -> None:
    assert refusal("image/png", b"") == (422, "no_image")
    assert refusal(MULTIPART, part(tiny_bytes(), "file"), b"--cut--\r\n") == (422, "no_image")


def test_other_types_of_body_are_refused_by_name() -> None:
    assert refusal("application/json", b"{}") == (415, "unsupported_type")


@pytest.mark.parametrize("content", [b"", b"plain text", b"RIFF1234WAVE"])
def test_a_file_is_told_by_its_content(content: bytes) -> None:
    with pytest.raises(ProblemError, match="image 3 is no JPEG, PNG or WEBP"):
        check_type(content, 3)


def test_bmp_is_not_taken_over_http() -> None:
    with pytest.raises(ProblemError, match="image 1 is no JPEG, PNG or WEBP"):
        check_type(tiny_bytes(kind="BMP"), 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pixels_are_those_of_the_bundles_own_decoding(kind: str) -> None:
    file = tiny_bytes(kind=kind)
    found = decode_image(file, 1, max_pixels=40 * 32)
    assert np.array_equal(np.asarray(found), np.asarray(decode(file)))


def png_that_claims(side: int) -> bytes:
    """A small PNG whose header says that it is a large square."""
    png = tiny_bytes()
    header = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.mark.parametrize("side", [41, 10_000, 100_000])
def test_too_many_pixels_are_refused_before_they_are_decoded(side: int) -> None:
    with pytest.raises(ProblemError, match="image 2 has more than 1600 pixels") as caught:
        decode_image(png_that_claims(side), 2, max_pixels=1600)
    assert (caught.value.status, caught.value.code) == (413, "too_many_pixels")


def test_a_truncated_file_says_so() -> None:
    file = BytesIO()
    tiny_image(0, (400, 320)).save(file, "JPEG")
    with pytest.raises(ProblemError, match=r"image 1: damaged \(.*truncated") as caught:
        decode_image(file.getvalue()[:2000], 1, max_pixels=200_000)
    assert (caught.value.status, caught.value.code) == (422, "damaged_image")


def test_a_file_of_which_only_the_first_bytes_are_right_is_damaged() -> None:
    with pytest.raises(ProblemError, match=r"image 1: damaged \(its header cannot be read"):
        decode_image(b"\xff\xd8\xff" + bytes(100), 1, max_pixels=100)


def test_a_jpeg_of_endless_scans_is_refused_before_it_is_decoded() -> None:
    file = tiny_bytes(kind="JPEG")
    scan = b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00"
    with pytest.raises(ProblemError, match=r"image 1: more than 40 scans; save it as a baseline"):
        decode_image(file[:-2] + scan * 50 + b"\xff\xd9", 1, max_pixels=10_000)
    progressive = BytesIO()
    tiny_image(0, (100, 80)).save(progressive, "JPEG", progressive=True)
    assert decode_image(progressive.getvalue(), 1, max_pixels=10_000).size == (100, 80)
