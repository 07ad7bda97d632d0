"""A study lies in a local folder or in a bucket; what goes wrong there is said in one line."""

import os
import pickle
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from moto.core.authorization import enable_iam_authentication
from upath import UPath

from search.atomic import write_text
from search.config import ExperimentConfig, load_config
from search.errors import ConfigError, StudyError
from search.location import list_files, open_place, read_bytes, read_many
from search.study.records import StudyFolder
from tests.experiments import DOCUMENT
from tests.servers import free_port, fresh_connections, s3, s3_environment

URL = "s3://studies/team/tiny"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3() as url:
        yield url


def load(folder: Path, **changes: object) -> ExperimentConfig:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**DOCUMENT, **changes}))
    return load_config(path)


def test_the_study_lies_in_the_output_unless_it_is_told(tmp_path: Path) -> None:
    assert load(tmp_path).study_folder == tmp_path / "out" / "study"
    assert load(tmp_path, study="there").study_folder == tmp_path / "there"
    assert str(load(tmp_path, study=URL + "/").study_folder) == URL


def test_a_config_with_a_url_goes_to_other_processes_and_into_yaml(tmp_path: Path) -> None:
    config = load(tmp_path, study=URL)
    assert pickle.loads(pickle.dumps(config)).study_folder == config.study_folder  # noqa: S301
    text = yaml.safe_dump(config.model_dump(mode="json"))
    assert ExperimentConfig.model_validate(yaml.safe_load(text)) == config


@pytest.mark.parametrize("url", ["ftp://host/study", "s3://", "s3:///study", "memory://study"])
def test_only_object_stores_are_urls_of_a_study(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match=r"study: a local folder, s3://bucket/prefix or gs://"):
        load(tmp_path, study=url)


def test_everything_but_the_study_and_the_sources_is_local(tmp_path: Path) -> None:
    rule = r"yaml:\d+: output: a local path .*; only study and dataset.sources .*, but it is 's3:"
    with pytest.raises(ConfigError, match=rule):
        load(tmp_path, output=URL)


def test_a_missing_driver_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.location.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"s3:// needs s3fs; pip install 'consilium\[s3\]'"):
        load(tmp_path, study=URL)


def test_files_are_listed_and_read_together(bucket: str, tmp_path: Path) -> None:
    for folder in (open_place(f"{bucket}/listed"), tmp_path / "listed"):
        assert list_files(folder) == {}
        for name in ("a.txt", "b/c.txt"):
            write_text(folder / name, name)
        write_text(folder.parent / "listed2" / "other", "x")
        assert list_files(folder) == {"a.txt": 5, "b/c.txt": 7}
        assert read_many([folder / "b/c.txt", folder / "a.txt"]) == [b"b/c.txt", b"a.txt"]
        assert read_many([]) == []
        with pytest.raises(FileNotFoundError, match=r"none.txt|key does not exist"):
            read_many([folder / "a.txt", folder / "none.txt"])


def test_many_files_take_one_request_each(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [open_place(f"{bucket}/many") / str(i) for i in range(3)]
    for place in places:
        write_text(place, "x")
    asked: list[str] = []
    kind = type(UPath(bucket).fs)
    real = kind._call_s3

    async def noted(fs: Any, method: str, *args: Any, **more: Any) -> Any:
        asked.append(method)
        return await real(fs, method, *args, **more)

    monkeypatch.setattr(kind, "_call_s3", noted)
    read_many(places)
    assert asked == ["get_object"] * 3


def test_a_file_written_elsewhere_is_seen_at_once(bucket: str) -> None:
    folder = open_place(f"{bucket}/seen")
    assert list_files(folder) == {}
    with fresh_connections():
        write_text(open_place(f"{bucket}/seen") / "a", "x")
    assert list_files(folder) == {"a": 1}


def test_a_missing_bucket_is_named_and_not_made(bucket: str) -> None:
    study = StudyFolder(open_place("s3://absent/study"))
    for _ in range(2):
        with pytest.raises(StudyError, match=r"^s3://absent/study.*: there is no such bucket; cre"):
            study.create()
    for touch in (study.head, study.records, study.disk_use, lambda: write_text(study.path, "x")):
        with pytest.raises(StudyError, match=r"^s3://absent/study.*: there is no such bucket"):
            touch()


def test_denied_access_is_one_line(bucket: str) -> None:
    with enable_iam_authentication(), pytest.raises(StudyError, match=r"x: access denied; check"):
        read_bytes(open_place(f"{bucket}/x"))


def test_missing_credentials_are_one_line(bucket: str) -> None:
    study = StudyFolder(open_place(f"{bucket}/x"))
    with patch.dict(os.environ), fresh_connections():
        del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        with pytest.raises(StudyError, match=r"x/study.json: no credentials; set AWS_ACCESS_KEY"):
            study.create()


def test_an_endpoint_that_never_answers_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.study.records.ANSWER_WITHIN", 0.3)
    said = pytest.raises(StudyError, match=r"tiny/study.json: does not answer; check AWS_ENDPOINT")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = s3_environment(f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with patch.dict(os.environ, environment), fresh_connections(), said:
            StudyFolder(open_place(URL)).create()
    assert time.monotonic() - start < 20


def test_an_endpoint_that_is_away_is_said_within_seconds() -> None:
    away, start = s3_environment(f"http://127.0.0.1:{free_port()}"), time.monotonic()
    said = pytest.raises(StudyError, match=r"cannot be reached; check AWS_ENDPOINT_URL and the")
    with patch.dict(os.environ, away), fresh_connections(), said:
        StudyFolder(open_place(URL)).create()
    assert time.monotonic() - start < 20
