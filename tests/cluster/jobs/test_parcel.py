"""What travels to a cluster: the code of here, one config, nothing else."""

import tomllib
from pathlib import Path

import pytest
import yaml

import cluster
import search
from cluster.jobs import parcel
from cluster.jobs.parcel import CONFIG, PACKAGES, SUFFIXES, local_folders, packed
from cluster.pipeline.config import pipeline_config
from ensemble.config import ensemble_config
from search.config import load_config
from search.errors import ClusterError
from tests.cluster.refusals import refusal
from tests.experiments import write_experiment

ROOT = Path(search.__file__).parents[1]
STORAGE = "postgresql://ada@db.example/studies"


def files_of(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_the_packages_travel_as_they_are_here(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    with packed(path, load_config(path)) as found:
        sent = files_of(found.folder)
        assert {name.split("/")[0] for name in sent} == {*PACKAGES, CONFIG}
        for name in sent - {CONFIG}:
            assert (found.folder / name).read_bytes() == (ROOT / name).read_bytes()
        assert {"cluster/__main__.py", "search/portfolio.yaml", "search/base.html.j2"} <= sent
        assert found.n_bytes < 4 * 2**20
    assert not found.folder.exists()


def test_all_that_an_installed_package_has_travels() -> None:
    about = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = {pattern for found in about["package-data"].values() for pattern in found}
    assert {pattern.removeprefix("*") for pattern in patterns} <= SUFFIXES


def test_what_lies_beside_the_code_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "cluster"
    for name in ("__init__.py", "page.j2", ".env", "id_rsa.pem", "weights.safetensors"):
        (package / "sub").mkdir(parents=True, exist_ok=True)
        (package / name).write_text("x")
        (package / "sub" / name).write_text("x")
    for folder in ("__pycache__", "notes", ".git"):
        (package / folder).mkdir()
        (package / folder / "a.py").write_text("x")
    monkeypatch.setattr(cluster, "__path__", [str(package)])
    path = write_experiment(tmp_path)
    with packed(path, load_config(path)) as found:
        assert files_of(found.folder / "cluster") == {
            *("__init__.py", "page.j2", "sub/__init__.py", "sub/page.j2")
        }


def test_the_config_reads_back_equal_from_anywhere(tmp_path: Path) -> None:
    novelty = {"images": "not_lesions"}
    path = write_experiment(
        tmp_path,
        study="elsewhere/study",
        storage=STORAGE,
        weights={"folder": "weights"},
        tracking={"mlflow": "http://mlflow.example:5000"},
        cache="$SCRATCH/cache",
        ensemble={"out_of_distribution": novelty, "cascade": None},
        pipeline={"evaluate": ["external/other.yaml"], "min_images": 5},
    )
    settings = load_config(path)
    with packed(path, settings) as found:
        again = load_config(found.folder / CONFIG)
        ours, theirs = (
            ensemble_config(p, c) for p, c in ((path, settings), (found.folder / CONFIG, again))
        )
        assert pipeline_config(found.folder / CONFIG, again) == pipeline_config(path, settings)
    own = {"ensemble": settings.ensemble, "pipeline": settings.pipeline}
    assert again.model_copy(update=own) == settings
    assert ours == theirs
    assert again.pipeline == {"evaluate": [str(tmp_path / "external/other.yaml")], "min_images": 5}
    assert again.ensemble == {
        "out_of_distribution": {"images": str(tmp_path / "not_lesions")},
        "cascade": None,
    }


def test_the_same_config_has_the_same_digest(tmp_path: Path) -> None:
    path = write_experiment(tmp_path)
    with packed(path, load_config(path)) as first, packed(path, load_config(path)) as again:
        assert first.digest == again.digest
    other = write_experiment(tmp_path, seed=1)
    with packed(other, load_config(other)) as changed:
        assert changed.digest != first.digest


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"storage": "postgresql://ada:open-sesame@db.example/studies"}, STORAGE),
        (
            {"storage": "postgresql://ada@db.example/studies?password=open-sesame"},
            STORAGE,
        ),
        (
            {"tracking": {"mlflow": "https://ada:open-sesame@mlflow.example/x"}},
            "https://mlflow.example/x",
        ),
    ],
    ids=["storage", "query", "tracking"],
)
def test_no_password_travels(tmp_path: Path, changes: dict[str, object], kept: str) -> None:
    path = write_experiment(tmp_path, **changes)
    with packed(path, load_config(path)) as found:
        document = (found.folder / CONFIG).read_text()
        assert all(b"open-sesame" not in f.read_bytes() for f in found.folder.glob("*.yaml"))
    sent = yaml.safe_load(document)
    assert kept in (sent["storage"], sent["tracking"]["mlflow"])


def test_what_the_nodes_must_see_is_named_once(tmp_path: Path) -> None:
    path = write_experiment(
        tmp_path,
        weights={"folder": "weights"},
        study="out/study",
        portfolio={"file": "recipes/own.yaml"},
    )
    assert seen_of(path, search=True) == ["data", "out", "recipes", "weights"]


def test_an_ensemble_and_a_pipeline_see_more(tmp_path: Path) -> None:
    path = write_experiment(
        tmp_path,
        ensemble={"out_of_distribution": {"images": "not_lesions"}},
        pipeline={"evaluate": ["external/other.yaml"], "releases": "releases"},
    )
    assert seen_of(path, search=True) == ["data", "out"]
    more = ["data", "external", "not_lesions", "out", "releases"]
    assert seen_of(path, search=False) == more


def seen_of(path: Path, *, search: bool) -> list[str]:
    folders = local_folders(path, load_config(path), search=search)
    return [folder.relative_to(path.parent).as_posix() for folder in folders]


def test_a_study_in_an_object_store_need_not_be_seen(tmp_path: Path) -> None:
    images = {"folder": "s3://images/train"}
    path = write_experiment(
        tmp_path, study="s3://studies/one", storage=STORAGE, dataset={"sources": [images]}
    )
    assert seen_of(path, search=True) == ["out"]


def test_a_parcel_that_is_too_large_names_its_largest_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parcel, "LARGEST", 2**20)
    path = write_experiment(tmp_path)
    with (
        pytest.raises(ClusterError, match=r"at most 1 can be sent; the largest file is \w+/"),
        packed(path, load_config(path)),
    ):
        pass


def test_a_mistake_in_the_ensemble_is_told_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write_experiment(tmp_path, ensemble={"membres": 3})
    with pytest.raises(Exception, match=r"ensemble\.membres: unknown key"):
        packed(path, load_config(path)).__enter__()
    absent = refusal(capsys, "submit", "absent.yaml", "--address", "http://127.0.0.1:9")
    assert absent == (
        "consilium: absent.yaml: no such file or directory; name an experiment's YAML file"
    )
