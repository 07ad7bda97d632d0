"""An image is read alike from a disk and from a bucket: its facts, its pixels, its map."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from moto.core.authorization import enable_iam_authentication

from search.config import AuditConfig
from search.data.audit import audit_dataset
from search.data.audit_page import write_audit_page
from search.data.cache import cache_images
from search.data.dataset import Dataset, load_dataset
from search.data.facts import gather_facts
from search.data.images import open_image, read_image, readers
from search.data.transforms import Preprocessing
from search.errors import CacheError, DamagedImageError, StudyError
from search.location import TOGETHER
from tests.buckets import noted_requests, put, remove, upload
from tests.search.data.layouts import class_folders, dataset_config
from tests.servers import s3

AUDIT = AuditConfig(min_side=64)
PIXELS = Preprocessing(size=16, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3() as url:
        yield url


@pytest.fixture
def bucket(server: str, request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own."""
    return f"{server}/{request.node.name}"


def damaged_set(folder: Path) -> Path:
    root = class_folders(folder / "set", {"a": 4, "b": 3})
    content = (root / "a" / "ISIC_0000000.jpg").read_bytes()
    (root / "a" / "ISIC_0000001.jpg").write_bytes(content[:-200])
    (root / "a" / "ISIC_0000002.jpg").write_bytes(b"")
    (root / "b" / "ISIC_0000005.jpg").write_text("no image")
    return root


def load(folder: Path, root: str) -> Dataset:
    return load_dataset(dataset_config(folder, {"sources": [{"folder": root}]}))


def facts_of(dataset: Dataset, known: pd.DataFrame | None = None) -> pd.DataFrame:
    return gather_facts(dataset.table["path"].tolist(), known=known, stamps=dataset.stamps)


def test_facts_are_the_same_in_a_bucket(tmp_path: Path, bucket: str) -> None:
    root = damaged_set(tmp_path)
    here = facts_of(load(tmp_path, "set"))
    there = facts_of(load(tmp_path, upload(root, f"{bucket}/set")))
    assert set(here["problem"]) == {None, "zero-byte", "truncated", "unreadable"}
    columns = [name for name in here.columns if name not in ("path", "mtime_ns")]
    pd.testing.assert_frame_equal(here[columns], there[columns])


def test_each_object_takes_one_request_and_a_rerun_takes_none(tmp_path: Path, bucket: str) -> None:
    url = upload(damaged_set(tmp_path), f"{bucket}/set")
    dataset = load(tmp_path, url)
    with noted_requests() as asked:
        known = facts_of(dataset)
    assert asked == ["get_object"] * 7
    stored = tmp_path / "facts.parquet"
    known.to_parquet(stored)
    with noted_requests() as asked:
        again = facts_of(load(tmp_path, url), pd.read_parquet(stored))
    assert asked == ["list_objects_v2"]
    pd.testing.assert_frame_equal(again, known)


def test_only_what_changed_is_read_again(tmp_path: Path, bucket: str) -> None:
    root = class_folders(tmp_path / "set", {"a": 3, "b": 2})
    url = upload(root, f"{bucket}/set")
    dataset = load(tmp_path, url)
    known = facts_of(dataset)
    content = bytearray((root / "a" / "ISIC_0000001.jpg").read_bytes())
    content[-30] ^= 1  # of the same size, within the second
    put(f"{url}/a/ISIC_0000001.jpg", bytes(content))
    with noted_requests() as asked:
        facts = facts_of(load(tmp_path, url), known)
    assert asked == ["list_objects_v2", "get_object"]
    changed = facts["file_digest"] != known["file_digest"]
    assert changed.tolist() == [False, True, False, False, False]


def test_an_object_that_is_not_listed_is_missing_unasked(bucket: str) -> None:
    path = f"{bucket}/none.jpg"
    with noted_requests() as asked:
        facts = gather_facts([path], stamps={path: (0, 0)})
    assert (facts["problem"].tolist(), facts["size_bytes"].tolist()) == (["missing"], [0])
    assert asked == []
    assert gather_facts([path], stamps={path: (0, 0)}, known=facts).equals(facts)
    assert gather_facts([path])["problem"].tolist() == ["missing"]  # where it has to be asked for


def test_an_object_that_goes_after_the_listing_is_missing(tmp_path: Path, bucket: str) -> None:
    url = upload(class_folders(tmp_path / "set", {"a": 2, "b": 2}), f"{bucket}/set")
    dataset = load(tmp_path, url)
    remove(f"{url}/a/ISIC_0000001.jpg")
    assert facts_of(dataset)["problem"].tolist() == [None, "missing", None, None]


def test_a_closed_bucket_is_one_line_and_no_damage(tmp_path: Path, bucket: str) -> None:
    dataset = load(tmp_path, upload(class_folders(tmp_path / "set", {"a": 2, "b": 2}), bucket))
    closed = pytest.raises(StudyError, match=r"\.jpg: access denied; check the credentials")
    with enable_iam_authentication(), closed:
        facts_of(dataset)


def test_objects_are_fetched_many_at_once(tmp_path: Path, bucket: str) -> None:
    dataset = load(tmp_path, upload(class_folders(tmp_path / "set", {"a": 8, "b": 8}), bucket))

    together = Barrier(16, timeout=60)

    def meet(path: str) -> bytes:
        together.wait()  # broken unless all sixteen are on their way
        return read_image(path)

    with patch("search.data.facts.read_image", meet):
        assert facts_of(dataset)["problem"].isna().all()
    assert readers(["/a.jpg"], 2) == 2
    assert readers(["/a.jpg", "s3://b/a.jpg"], 2) == TOGETHER


def test_a_map_of_a_bucket_holds_the_same_pixels(tmp_path: Path, bucket: str) -> None:
    root = class_folders(tmp_path / "set", {"a": 3, "b": 3})
    url, here, there = upload(root, bucket), {}, {}
    for path in sorted(root.rglob("*.jpg")):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        here[digest] = path
        there[digest] = f"{url}/{path.relative_to(root)}"
    disk = cache_images(here, PIXELS, tmp_path / "here")
    with noted_requests() as asked:
        store = cache_images(there, PIXELS, tmp_path / "there")
    assert asked == ["get_object"] * 6
    assert disk.folder.name == store.folder.name
    np.testing.assert_array_equal(disk.pixels, store.pixels)
    assert disk.row_of == store.row_of


def test_objects_that_changed_went_or_are_damaged_are_named(tmp_path: Path, bucket: str) -> None:
    digest = hashlib.sha256(b"no image").hexdigest()
    url = f"{bucket}/x.jpg"
    with pytest.raises(CacheError, match=r"x.jpg: no such object; bring the file back and run"):
        cache_images({digest: url}, PIXELS, tmp_path / "cache")
    put(url, b"another")
    with pytest.raises(CacheError, match=rf"{url}: changed since the audit; search into another"):
        cache_images({digest: url}, PIXELS, tmp_path / "cache")
    put(url, b"no image")
    cache = cache_images({digest: url}, PIXELS, tmp_path / "cache")
    with pytest.raises(CacheError, match=rf"^{url}: not a JPEG, PNG.*; drop it with audit.damaged"):
        cache.rows([digest])


def test_an_image_that_cannot_be_opened_is_named(tmp_path: Path, bucket: str) -> None:
    put(f"{bucket}/bad.jpg", b"no image")
    for name, problem in (("none", "no such file; check the path"), ("bad", "not a JPEG, PNG")):
        for path in (f"{bucket}/{name}.jpg", str(tmp_path / f"{name}.jpg")):
            (tmp_path / "bad.jpg").write_bytes(b"no image")
            with pytest.raises(DamagedImageError, match=rf"^{path}: {problem}"):
                open_image(path)


def test_the_audit_s_page_shows_objects(tmp_path: Path, bucket: str) -> None:
    root = damaged_set(tmp_path)
    pages = []
    for where in ("set", upload(root, f"{bucket}/set")):
        config = dataset_config(tmp_path, {"sources": [{"folder": where}]})
        dataset = load_dataset(config)
        facts = facts_of(dataset)
        audit = audit_dataset(
            dataset.table, facts, AUDIT, classes=dataset.classes, given_split=False
        )
        write_audit_page(tmp_path / "audit.html", audit, dataset.table, facts)
        pages.append((tmp_path / "audit.html").read_text())
    assert pages[0] == pages[1]
    assert "data:image/jpeg;base64," in pages[0]
