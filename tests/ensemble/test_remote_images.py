"""A study, its ensemble's parts and an evaluation whose images all lie in a bucket."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from ensemble.bundle import load_bundle
from ensemble.evaluation.score import score_images
from ensemble.external import External, evaluate_external
from ensemble.runtime import Runtime
from ensemble.seen import seen_among, write_seen
from search.config import ExperimentConfig, load_config
from search.data.dataset import load_dataset
from search.errors import DatasetError, StudyError
from search.params import Params
from search.study.identity import refuse_changed_data
from search.study.intake import take_in
from search.study.records import StudyFolder
from search.study.trial import Trial, train_trial
from tests.buckets import noted_requests, put, upload
from tests.experiments import DOCUMENT, write_experiment
from tests.servers import s3
from tests.tiny import write_tiny_bundle

PARAMS = Params(backbone="cnn", image_size=16, hidden=4, dropout=0)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3() as url:
        yield url


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    folder = tmp_path_factory.mktemp("here")
    return load_config(write_experiment(folder))


@pytest.fixture(scope="module")
def there(here: ExperimentConfig, bucket: str) -> ExperimentConfig:
    """The same images and table, all of it in the bucket; so is the study."""
    data = here.output.parent / "data"
    url = upload(data, f"{bucket}/data")
    (source,) = DOCUMENT["dataset"]["sources"]
    source = {**source, "table": f"{url}/metadata.csv", "images": [f"{url}/images"]}
    document = {
        **DOCUMENT,
        "output": "there",
        "study": f"{bucket}/study",
        "dataset": {**DOCUMENT["dataset"], "sources": [source]},
    }
    path = here.output.parent / "there.yaml"
    path.write_text(yaml.safe_dump(document))
    return load_config(path)


def begin(config: ExperimentConfig) -> StudyFolder:
    study = StudyFolder(config.study_folder)
    study.create()
    study.write_head(take_in(config, study))
    return study


@pytest.mark.slow
def test_a_trial_on_a_bucket_s_images_is_the_same_trial(
    here: ExperimentConfig, there: ExperimentConfig, bucket: str
) -> None:
    studies = [begin(config) for config in (here, there)]
    heads = [study.head() for study in studies]
    assert heads[0].data_digest == heads[1].data_digest
    assert heads[0].splits_hash == heads[1].splits_hash
    probs = [train_trial(config, Trial(0, PARAMS), threads=1).probs for config in (here, there)]
    np.testing.assert_array_equal(probs[0], probs[1])
    images = studies[1].open_images()
    assert images["path"].str.startswith(f"{bucket}/data/images/").all()
    with noted_requests() as asked:
        refuse_changed_data(there, studies[1])
    assert asked.count("get_object") <= 4  # the table, the study's own files, no image
    lost = images["path"].iloc[0]
    put(lost, b"another")
    with pytest.raises(StudyError, match=r"data set changed since .*: 1 image changed \(images/"):
        refuse_changed_data(there, studies[1])
    name = lost.rpartition("/")[2]
    put(lost, (here.output.parent / "data" / "images" / name).read_bytes())


@pytest.mark.slow
def test_an_evaluation_on_a_bucket_comes_to_the_same_numbers(
    here: ExperimentConfig, there: ExperimentConfig, tmp_path: Path
) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path / "bundle"))
    how = External("tiny", {}, examples=3)
    found = [
        evaluate_external(bundle, load_dataset(config.dataset), how, tmp_path / name)
        for name, config in (("here", here), ("there", there))
    ]
    assert found[0] == found[1]
    pages = [(tmp_path / name / "report.html").read_text() for name in ("here", "there")]
    assert pages[0].count("data:image/jpeg;base64,") == pages[1].count("data:image/jpeg;base64,")


def test_images_in_a_bucket_are_scored_as_on_the_disk(
    here: ExperimentConfig, bucket: str, tmp_path: Path
) -> None:
    runtime = Runtime(load_bundle(write_tiny_bundle(tmp_path / "bundle")))
    paths = [str(path) for path in sorted((here.output.parent / "data/images").iterdir())[:6]]
    urls = []
    for path in paths:
        urls.append(f"{bucket}/scored/{Path(path).name}")
        put(urls[-1], Path(path).read_bytes())
    put(f"{bucket}/scored/bad.jpg", b"no image")
    there = [*urls[:3], f"{bucket}/scored/none.jpg", f"{bucket}/scored/bad.jpg", *urls[3:]]
    scored = score_images(runtime, there)
    assert scored.rows.tolist() == [0, 1, 2, 5, 6, 7]
    assert set(scored.skipped) == set(there[3:5])
    assert scored.skipped[there[3]] == f"{there[3]}: no such file; check the path"
    expected = score_images(runtime, paths).scores
    np.testing.assert_array_equal(scored.scores.member_probs, expected.member_probs)
    with pytest.raises(DatasetError, match=r"none of 1 images can be read; the first is s3://"):
        score_images(runtime, there[3:4])
    with pytest.raises(StudyError, match=r"^s3://nowhere/a.jpg: there is no such bucket"):
        score_images(runtime, ["s3://nowhere/a.jpg"])


def test_a_bundle_knows_its_images_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    write_seen(tmp_path, [hashlib.sha256(b"a").hexdigest()])
    for name in ("a", "b"):
        put(f"{bucket}/seen/{name}", name.encode())
    urls = [f"{bucket}/seen/{name}" for name in ("b", "none", "a")]
    assert seen_among(tmp_path, urls).tolist() == [False, False, True]
