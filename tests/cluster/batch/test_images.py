"""Images found by name, and what is wrong with them."""

import os
from pathlib import Path

import pytest

from cluster.batch import images
from cluster.batch.images import MISSING, Fault, Folders, decoded, read_images
from search import location
from search.errors import StudyError
from search.location import open_place
from tests.cluster.batch.folders import BAD, write_bad_images, write_images
from tests.servers import s3
from tests.tiny import tiny_bytes


def kind(place: str | None) -> str:
    (file,) = read_images([place])
    found = decoded(file)
    return found.reason.partition(":")[0] if isinstance(found, Fault) else "good"


def test_a_name_is_found_without_its_extension_in_the_first_folder_that_has_it(
    tmp_path: Path,
) -> None:
    write_images(tmp_path / "one", 1)
    write_images(tmp_path / "two", 2)
    (tmp_path / "two" / "upper.JPG").touch()
    folders = Folders([str(tmp_path / "one"), str(tmp_path / "two")])
    assert folders.find("image_000") == str(tmp_path / "one" / "image_000.png")
    assert folders.find("image_001.png") == str(tmp_path / "two" / "image_001.png")
    assert folders.find("upper") == str(tmp_path / "two" / "upper.JPG")
    assert folders.find("image_002") is None


def test_absolute_paths_and_urls_stand_for_themselves(tmp_path: Path) -> None:
    write_images(tmp_path, 1)
    folders = Folders([])
    assert folders.find(str(tmp_path / "image_000")) == str(tmp_path / "image_000.png")
    assert folders.find("s3://bucket/any") == "s3://bucket/any"


@pytest.mark.parametrize("name", ["\0", "x" * 5000, "..", "a/b/c"])
def test_a_name_that_no_image_can_have_is_a_row_with_an_error(tmp_path: Path, name: str) -> None:
    assert kind(Folders([str(tmp_path)]).find(name)) in ("missing", "unreadable")


@pytest.mark.parametrize(("name", "expected"), BAD.items())
def test_each_defect_is_told_by_its_kind(tmp_path: Path, name: str, expected: str) -> None:
    write_bad_images(tmp_path)
    assert kind(str(tmp_path / name)) == expected


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert kind(str(tmp_path / "pipe.png")) == "unreadable"


def test_a_file_of_too_many_bytes_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "LARGEST", 10)
    write_images(tmp_path, 1)
    assert kind(str(tmp_path / "image_000.png")) == "too large"


def test_objects_come_in_order_and_theirs_alone_is_what_is_wrong_with_them() -> None:
    with s3() as bucket:
        place = open_place(bucket)
        for name, content in {"a": tiny_bytes(1), "empty": b"", "c": tiny_bytes(3)}.items():
            (place / "images" / f"{name}.png").write_bytes(content)
        folders = Folders([f"{bucket}/images"])
        found = [folders.find(name) for name in ("a", "c.png", "absent")]
        assert found == [f"{bucket}/images/a.png", f"{bucket}/images/c.png", None]
        asked = [*found, f"{bucket}/images/empty.png", f"{bucket}/none.png", "http://host/a.png"]
        read = list(read_images(asked))
    assert read[:3] == [tiny_bytes(1), tiny_bytes(3), MISSING]
    assert decoded(read[3]) == Fault("unreadable: the file is empty")
    assert read[4:] == [MISSING, Fault("unreadable: http:// is not understood")]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://bad bucket!/x.jpg", "unreadable: Parameter validation failed: Invalid bucket name"),
        ("s3://orange bucket/x.jpg", "unreadable: Parameter validation failed: Invalid bucket"),
        ("s3://bucketonly", "unreadable: the URL names a bucket and no image"),
        ("s3://bucketonly/", "unreadable: the URL names a bucket and no image"),
        ("s3:///x", "unreadable: a local folder, s3://bucket/prefix or gs://bucket/prefix is"),
        ("s3://", "unreadable: a local folder, s3://bucket/prefix or gs://bucket/prefix is"),
        ("gs://bucket/x.jpg", "unreadable: gs:// needs gcsfs; pip install gcsfs"),
        ("://x", "unreadable: :// is not understood"),
        ("s3://no-such-bucket/x.jpg", "missing: no such file"),
    ],
)
def test_a_cell_that_is_no_url_of_an_image_is_its_own_row_alone(
    url: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "find_spec", lambda name: None if name == "gcsfs" else name)
    with s3() as bucket:
        place = open_place(bucket)
        (place / "a.png").write_bytes(tiny_bytes(1))
        first, bad, last = read_images([f"{bucket}/a.png", url, f"{bucket}/a.png"])
    assert first == last == tiny_bytes(1)
    assert isinstance(bad, Fault)
    assert bad.reason.startswith(why)


class AnsweredError(Exception):
    """As botocore's ClientError."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


@pytest.mark.parametrize(
    ("status", "is_its_own"), [(400, True), (301, True), (429, False), (500, False), (503, False)]
)
def test_a_refused_request_is_the_images_own_and_an_outage_is_not(
    status: int, is_its_own: bool
) -> None:
    error = OSError(5, "said so")
    error.__cause__ = AnsweredError(status)
    place = open_place("s3://bucket/a.png")
    if is_its_own:
        assert images._told(place, error) == Fault("unreadable: [Errno 5] said so")
    else:
        with pytest.raises(StudyError, match=r"said so"):
            images._told(place, error)


def test_an_object_store_that_is_down_ends_the_scoring_and_blames_no_image() -> None:
    with s3() as bucket, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        type(open_place(bucket).fs).clear_instance_cache()  # type: ignore[union-attr]
        with pytest.raises(StudyError, match=r"cannot be reached"):
            list(read_images([f"{bucket}/a.png"]))
        type(open_place(bucket).fs).clear_instance_cache()  # type: ignore[union-attr]
