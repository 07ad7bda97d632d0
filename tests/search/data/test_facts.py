"""Facts of image files."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
import pytest
import ray
from PIL import Image
from ray.exceptions import NodeDiedError, RayTaskError

from search.data import facts
from search.data.facts import CHUNK, COLUMNS, gather_facts, inspect_image
from search.errors import StudyError
from tests.rays import started_ray


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path = tmp_path / "picture.jpg"
    Image.fromarray(pixels).save(path, quality=95)
    return path


@pytest.fixture
def cluster() -> Iterator[None]:
    with started_ray(num_cpus=1):
        yield


def test_a_sound_image_has_its_size_mode_and_digests(picture: Path) -> None:
    facts = inspect_image(picture)
    assert (facts["width"], facts["height"], facts["mode"]) == (60, 40, "RGB")
    assert facts["size_bytes"] == picture.stat().st_size
    assert facts["file_digest"] == hashlib.sha256(picture.read_bytes()).hexdigest()
    assert facts["problem"] is None


def test_the_hash_is_imagehash_s_of_256_bits(picture: Path) -> None:
    with Image.open(picture) as image:
        expected = imagehash.phash(image, hash_size=16)
    phash = inspect_image(picture)["phash"]
    assert len(phash) == 64
    assert imagehash.hex_to_hash(phash) == expected


def test_the_same_pixels_in_another_format_share_the_pixel_digest_only(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(300, dtype=np.uint16).astype(np.uint8).reshape(10, 10, 3))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.bmp")
    png, bmp = inspect_image(tmp_path / "a.png"), inspect_image(tmp_path / "a.bmp")
    assert png["pixel_digest"] == bmp["pixel_digest"]
    assert png["file_digest"] != bmp["file_digest"]


def test_the_pixel_digest_depends_on_the_shape(tmp_path: Path) -> None:
    Image.new("RGB", (4, 9)).save(tmp_path / "tall.png")
    Image.new("RGB", (6, 6)).save(tmp_path / "square.png")
    digests = {inspect_image(path)["pixel_digest"] for path in tmp_path.iterdir()}
    assert len(digests) == 2


def test_a_sideways_photograph_is_measured_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "sideways.jpg", exif=exif)
    facts = inspect_image(tmp_path / "sideways.jpg")
    assert (facts["width"], facts["height"]) == (40, 60)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_other_modes_are_reported_and_still_hashed(mode: str, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").convert(mode).save(tmp_path / "image.png")
    facts = inspect_image(tmp_path / "image.png")
    assert facts["mode"] == mode
    assert facts["pixel_digest"] is not None


def test_every_kind_of_damage_has_its_name(picture: Path) -> None:
    content, folder = picture.read_bytes(), picture.parent
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    names = ["none.jpg", "zero.jpg", "text.jpg", "cut.jpg"]
    problems = [inspect_image(folder / name)["problem"] for name in names]
    assert problems == ["missing", "zero-byte", "unreadable", "truncated"]


def test_a_truncated_file_keeps_its_header_but_has_no_pixels(picture: Path) -> None:
    picture.write_bytes(picture.read_bytes()[:-200])
    facts = inspect_image(picture)
    assert (facts["width"], facts["height"]) == (60, 40)
    assert facts["pixel_digest"] is None
    assert facts["phash"] is None
    assert facts["file_digest"] is not None


def test_a_folder_in_place_of_a_file_is_unreadable(tmp_path: Path) -> None:
    assert inspect_image(tmp_path)["problem"] == "unreadable"


def test_facts_come_in_the_order_of_the_paths_without_a_cluster(picture: Path) -> None:
    paths = [str(picture), str(picture.with_name("none.jpg")), str(picture)]
    facts = gather_facts(paths)
    assert not ray.is_initialized()
    assert list(facts.columns) == list(COLUMNS)
    assert facts["path"].tolist() == paths
    assert facts["problem"].tolist() == [None, "missing", None]


def test_no_paths_give_an_empty_table() -> None:
    facts = gather_facts([])
    assert list(facts.columns) == list(COLUMNS)
    assert facts.empty


def test_progress_grows_chunk_by_chunk(picture: Path) -> None:
    paths = [str(picture.with_name(f"{i}.jpg")) for i in range(CHUNK + 1)]
    done: list[int] = []
    gather_facts(paths, progress=done.append)
    assert done == [CHUNK, CHUNK + 1]


def test_ray_tasks_find_the_same_as_one_process(picture: Path, cluster: None) -> None:
    paths = [str(picture.with_name(f"{i}.jpg")) for i in range(CHUNK + 1)]
    for path in paths[::2]:
        shutil.copy(picture, path)
    done: list[int] = []
    by_ray = gather_facts(paths, progress=done.append)
    ray.shutdown()
    pd.testing.assert_frame_equal(by_ray, gather_facts(paths))
    assert done[-1] == len(paths)


def _failed(cause: Exception) -> Exception:
    return RayTaskError("task", "Traceback: long", cause)  # type: ignore[no-untyped-call]


class FailingRay:
    """Ray, and each of its tasks, which all end with one error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def is_initialized(self) -> bool:
        return True

    def remote(self, _: object) -> "FailingRay":
        return self

    def wait(self, pending: list[object]) -> tuple[list[object], list[object]]:
        return pending[:1], pending[1:]

    def get(self, _: list[object]) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "kind", "why"),
    [
        (
            _failed(StudyError("s3://b: access denied")),
            StudyError,
            r"^s3://b: access denied$",
        ),
        (
            NodeDiedError("the node\nis gone"),  # type: ignore[no-untyped-call]
            StudyError,
            r"^reading the images: .*the node is gone.*; give the same command again$",
        ),
        (_failed(KeyError("x")), RayTaskError, r"Traceback: long"),
    ],
)
def test_what_a_task_stumbles_over_is_one_line(
    error: Exception, kind: type[Exception], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "ray", FailingRay(error))
    with pytest.raises(kind, match=why) as raised:
        gather_facts(["a.png"])
    assert raised.value.__cause__ is None


def test_known_facts_are_taken_over_where_size_and_time_agree(picture: Path) -> None:
    known = gather_facts([str(picture)]).assign(mode="remembered")
    assert gather_facts([str(picture)], known=known)["mode"].tolist() == ["remembered"]


def test_a_file_of_another_time_is_inspected_again(picture: Path) -> None:
    known = gather_facts([str(picture)]).assign(mode="remembered")
    known["mtime_ns"] += 1
    assert gather_facts([str(picture)], known=known)["mode"].tolist() == ["RGB"]


def test_facts_survive_a_round_through_parquet(picture: Path) -> None:
    paths = [str(picture), str(picture.with_name("none.jpg"))]
    facts = gather_facts(paths)
    stored = picture.with_name("facts.parquet")
    facts.to_parquet(stored)
    again = gather_facts(paths, known=pd.read_parquet(stored))
    pd.testing.assert_frame_equal(facts, again)
