"""Places that an experiment names: whether a node reads and writes them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import pytest

from cluster.doctor.driver import marked
from cluster.doctor.needs import cache_bytes, count_images
from cluster.doctor.places import check_places, check_sources, check_study, check_weights
from search.config import ExperimentConfig, load_config
from search.location import open_place
from tests.experiments import write_experiment
from tests.servers import fresh_connections, s3, s3_environment


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    return load_config(write_experiment(tmp_path))


def test_a_fit_experiment_is_well_and_nothing_is_left(
    config: ExperimentConfig, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with marked(config) as mark:
        findings = check_places(config, mark)
    assert {finding.level for finding in findings} == {"ok"}
    assert [finding.check for finding in findings] == ["study place", "images", "images"]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_not_the_drivers_is_no_study_place(tmp_path: Path) -> None:
    finding = check_study(tmp_path / "study", "a-file-of-the-driver")
    assert finding.seen == f"{tmp_path} is not the driver's folder"
    assert finding.mend == "name s3:// under study, or a shared file system"


def test_images_that_are_not_there(config: ExperimentConfig, tmp_path: Path) -> None:
    (tmp_path / "data" / "metadata.csv").unlink()
    table, folder = check_sources(config)
    assert (table.level, folder.level) == ("broken", "ok")
    assert table.seen == f"{tmp_path / 'data' / 'metadata.csv'} is not there"


def test_weights_that_recipes_ask_for_must_be_there(tmp_path: Path) -> None:
    portfolio = {"recipes": ["resnet50"], "override": {"weights": "folder"}}
    path = write_experiment(tmp_path, portfolio=portfolio, weights={"folder": "weights"})
    config = load_config(path)
    assert [finding.seen for finding in check_weights(config)] == [
        f"{tmp_path / 'weights'} is not there"
    ]
    (tmp_path / "weights").mkdir()
    assert "no resnet50.safetensors in" in check_weights(config)[0].seen
    (tmp_path / "weights" / "resnet50.safetensors").touch()
    assert check_weights(config)[0].level == "ok"


def test_decoded_images_are_counted_by_size(config: ExperimentConfig) -> None:
    rows = len((config.output.parent / "data" / "metadata.csv").read_text().splitlines()) - 1
    assert count_images(config) == rows
    assert cache_bytes(config) == rows * 3 * (16**2 + 24**2)
    bounded = config.model_copy(update={"cache_gb": 1e-6})
    assert cache_bytes(bounded) == 1000


def test_a_bucket_is_written_read_and_left_empty() -> None:
    with s3() as bucket:
        place = open_place(f"{bucket}/study")
        assert check_study(place).level == "ok"
        assert not place.exists()
        lost = check_study(open_place("s3://absent/study"))
    assert "there is no such bucket" in lost.seen
    assert lost.mend == "create it or name another"


@contextmanager
def forbidding() -> Iterator[None]:
    """An S3 API that lets nothing be done."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which has the client's question whether to go on
        timeout = 5

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        with patch.dict(os.environ, s3_environment(endpoint)), fresh_connections():
            yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_bucket_without_permission_is_one_line() -> None:
    with forbidding():
        finding = check_study(open_place("s3://studies/study"))
    assert finding.level == "broken"
    assert "access denied" in finding.seen
    assert finding.mend == "check the credentials and the bucket's policy"
