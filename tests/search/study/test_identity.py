"""A study goes on only with the config and the data it began with; else it says what differs."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import yaml

from search.atomic import write_text
from search.config import ExperimentConfig
from search.errors import DatasetError, StudyError
from search.study.identity import FREE, refuse_changed_data, refuse_other, stored_config
from search.study.intake import FACTS, audit_data, take_in
from search.study.records import StudyFolder, StudyHead
from tests.search.data.layouts import class_folders, draw
from tests.search.study.test_intake import an_experiment

SPACE = {
    "backbone": {"choice": ["cnn", "resnet18"]},
    "lr": {"low": 1e-4, "high": 0.01, "log": True},
    "dropout": 0.5,
}


HEAD = StudyHead(
    name="tiny",
    created="2026-01-01T00:00:00+00:00",
    classes=["mel", "nv"],
    positive="mel",
    objective="nll",
    seed=0,
    data_digest="d",
    splits_hash="s",
    n_images={},
    versions={},
)


def note(config: ExperimentConfig) -> StudyFolder:
    """What a study keeps of its config."""
    folder = StudyFolder(config.study_folder)
    document = config.model_dump(mode="json", exclude_none=True)
    write_text(folder.path / "config.yaml", yaml.safe_dump(document, sort_keys=False))
    folder.write_head(HEAD)
    return folder


def begin(config: ExperimentConfig) -> StudyFolder:
    """What a search leaves before its first trial."""
    folder = note(config)
    folder.write_head(take_in(config, folder))
    return folder


def refusal(config: ExperimentConfig, folder: StudyFolder) -> str:
    with pytest.raises(StudyError, match="of another config") as caught:
        refuse_other(config, folder)
    return str(caught.value)


def changed(config: ExperimentConfig, folder: StudyFolder) -> str:
    """What changed, as the error lists it."""
    start, end = f"{folder.path}: the data set changed since this study began: ", "; bring it back"
    with pytest.raises(StudyError, match=f"{start}.*{end}, or choose another output") as caught:
        refuse_changed_data(config, folder)
    return str(caught.value).removeprefix(start).partition(end)[0]


def change_labels(folder: Path, labels: dict[str, str]) -> None:
    table = pd.read_csv(folder / "metadata.csv")
    table["dx"] = [labels.get(i, dx) for i, dx in zip(table["image_id"], table["dx"], strict=True)]
    table.to_csv(folder / "metadata.csv", index=False)


def by_side(folder: StudyFolder) -> tuple[list[str], list[str]]:
    """Names of the open images, and of those that are not."""
    seen = sorted(folder.open_images()["image_id"])
    return seen, sorted({f"i{i:02d}" for i in range(40)} - set(seen))


# The config


def test_the_same_config_goes_on(tmp_path: Path) -> None:
    columns = {"image": "image_id", "label": "dx", "lesion": "lesion_id", "patient": None}
    source = {"table": "metadata.csv", "images": ["images"], "columns": columns}
    folder = note(an_experiment(tmp_path, space=SPACE))
    refuse_other(an_experiment(tmp_path, space=SPACE), folder)
    dataset = {"sources": [source], "positive": "mel"}
    refuse_other(an_experiment(tmp_path, space=SPACE, dataset=dataset), folder)


def test_how_much_where_and_on_what_may_change(tmp_path: Path) -> None:
    folder = note(an_experiment(tmp_path))
    free: dict[str, Any] = {
        "output": "elsewhere",
        "study": str(tmp_path / "there"),
        "cache": "fast",
        "cache_gb": 20,
        "budget": {"trials": 99, "minutes": 5},
        "resources": {"cpu": 2},
        "ensemble": {"members": 3},
        "pipeline": {"canary": 5},
        "tracking": {"mlflow": "http://127.0.0.1:5000"},
    }
    assert set(free) == FREE
    refuse_other(an_experiment(tmp_path, **free), folder)


def test_every_difference_is_named_with_both_values(tmp_path: Path) -> None:
    folder = note(an_experiment(tmp_path, space=SPACE, fidelity={"max_epochs": 9}))
    space = {**SPACE, "lr": {"low": 1e-4, "high": 0.02, "log": True}}
    config = an_experiment(tmp_path, space=space, fidelity={"max_epochs": 12})
    assert refusal(config, folder) == (
        f"{folder.path}: holds study 'tiny' of another config: space.lr.high 0.01, now 0.02; "
        "fidelity.max_epochs 9, now 12; change it back, or choose another output folder"
    )


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"sampler": "gp"}, "sampler tpe, now gp"),
        ({"objective": ["nll", "auroc"]}, r'objective nll, now \["nll", "auroc"\];'),
        ({"fidelity": {"finalists": 0}}, "fidelity.finalists 3, now 0"),
        ({"constraints": {"ece": 0.1}}, "constraints.ece absent, now 0.1"),
        (
            {"space": {"backbone": "cnn"}},
            r'space.backbone {"choice": \["cnn", "resnet18"\]}, now cnn; '
            'space.lr {"low": 0.0001, "high": 0.01, "log": true}, now absent; '
            "space.dropout 0.5, now absent;",
        ),
        (
            {"space": {**SPACE, "backbone": {"choice": ["cnn"]}}},
            r'space.backbone.choice \["cnn", "resnet18"\], now \["cnn"\];',
        ),
        (
            {"policy": {"cost_ratio": 5}},
            "policy.sensitivity 0.95, now absent; policy.cost_ratio absent, now 5.0",
        ),
        ({"weights": {"folder": "w"}}, r"weights.folder absent, now /.*/w;"),
    ],
)
def test_a_difference_is_told_where_it_is(
    tmp_path: Path, changes: dict[str, Any], difference: str
) -> None:
    folder = note(an_experiment(tmp_path, space=SPACE))
    given = {"space": SPACE, **changes}
    with pytest.raises(StudyError, match=f"of another config: {difference}"):
        refuse_other(an_experiment(tmp_path, **given), folder)


def test_a_source_is_told_by_its_place(tmp_path: Path) -> None:
    config = an_experiment(tmp_path)
    folder = note(config)
    document = config.model_dump()
    document["dataset"]["sources"][0]["columns"]["lesion"] = None
    other = ExperimentConfig.model_validate(document)
    assert "config: dataset.sources.0.columns.lesion lesion_id, now absent;" in refusal(
        other, folder
    )


def test_of_many_differences_five_are_told(tmp_path: Path) -> None:
    folder = note(an_experiment(tmp_path, space={"backbone": "cnn"}))
    space = {"backbone": "cnn", "lr": 0.1, "hidden": 1, "dropout": 0, "ema": 0, "mixup": 0}
    message = refusal(an_experiment(tmp_path, space=space, seed=1, sampler="qmc"), folder)
    assert message.count(", now ") == 5
    assert "; and 2 more; change it back" in message


def test_a_password_is_no_difference_and_never_shown(tmp_path: Path) -> None:
    folder = note(an_experiment(tmp_path, storage="postgresql://me:old@host:5432/db"))
    refuse_other(an_experiment(tmp_path, storage="postgresql://me:new@host:5432/db"), folder)
    message = refusal(an_experiment(tmp_path, storage="postgresql://me:new@other:5432/db"), folder)
    assert "storage postgresql://me@host:5432/db, now postgresql://me@other:5432/db" in message


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    folder = note(an_experiment(tmp_path))
    names = [f"backbone_{i}" for i in range(20)]
    message = refusal(an_experiment(tmp_path, weights={"allow": names}), folder)
    assert 'weights.allow [], now ["backbone_0", ' in message
    assert "...; change it back" in message
    assert "backbone_9" not in message


@pytest.mark.parametrize("text", [None, "name: [", "name: tiny\n"])
def test_a_config_that_cannot_be_read_is_said(tmp_path: Path, text: str | None) -> None:
    folder = note(an_experiment(tmp_path))
    path = tmp_path / "out" / "study" / "config.yaml"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(StudyError, match=r"config.yaml: missing or damaged; choose another"):
        stored_config(folder)


# The data set


def test_unchanged_data_go_on_and_no_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = an_experiment(tmp_path)
    folder = begin(config)
    monkeypatch.setattr(
        "search.data.facts.inspect_image", lambda path: pytest.fail(f"{path} is read")
    )
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "wait", lambda tasks: pytest.fail("a task is started"))
    refuse_changed_data(config, folder)


def test_a_file_that_was_only_touched_is_read_once_more(tmp_path: Path) -> None:
    config = an_experiment(tmp_path)
    folder = begin(config)
    os.utime(tmp_path / "images" / "i07.jpg", ns=(1, 1))
    told: list[tuple[str, int, int]] = []
    for _ in range(2):
        refuse_changed_data(config, folder, progress=lambda *step: told.append(step))
    assert told == [("audit", 40, 40)]


@pytest.mark.parametrize("content", [None, b"no table"])
def test_without_known_facts_every_file_is_read(tmp_path: Path, content: bytes | None) -> None:
    config = an_experiment(tmp_path)
    folder = begin(config)
    facts = config.output / FACTS
    facts.unlink() if content is None else facts.write_bytes(content)
    told: list[int] = []
    refuse_changed_data(config, folder, progress=lambda what, done, total: told.append(done))
    assert told[-1] == 40
    assert facts.stat().st_size > 1000


def test_without_known_facts_no_image_is_called_new(tmp_path: Path) -> None:
    config = an_experiment(tmp_path)
    folder = begin(config)
    (config.output / FACTS).unlink()
    name = by_side(folder)[0][0]
    draw(tmp_path / "images" / f"{name}.jpg", seed=90)
    assert changed(config, folder) == f"1 image changed (images/{name}.jpg)"


def test_files_and_labels_that_changed_are_named(tmp_path: Path) -> None:
    config = an_experiment(tmp_path)
    folder = begin(config)
    (first, second, third, *_), _ = by_side(folder)
    draw(tmp_path / "images" / f"{first}.jpg", seed=90)
    (tmp_path / "images" / f"{second}.jpg").unlink()
    for name in ("x1", "x2"):
        draw(tmp_path / "images" / f"{name}.jpg", seed=91)
    with (tmp_path / "metadata.csv").open("a") as table:
        table.write("x1,mel,L90\nx2,nv,L91\n")
    old = "mel" if int(third[1:]) % 4 < 2 else "nv"
    new = "nv" if old == "mel" else "mel"
    change_labels(tmp_path, {third: new})
    before = (config.output / FACTS).read_bytes()
    assert changed(config, folder) == (
        f"2 images added (images/x1.jpg, images/x2.jpg), 1 image removed (images/{second}.jpg), "
        f"1 image changed (images/{first}.jpg), 1 label changed ({third}.jpg: {old}, now {new})"
    )
    assert (config.output / FACTS).read_bytes() == before


def test_an_image_moved_to_another_class_is_gone_from_the_first(tmp_path: Path) -> None:
    class_folders(tmp_path / "skin", {"mel": 12, "nv": 12})
    dataset = {"sources": [{"folder": "skin"}], "positive": "mel"}
    config = an_experiment(tmp_path, dataset=dataset)
    folder = begin(config)
    name = "ISIC_0000003.jpg"
    (tmp_path / "skin" / "mel" / name).rename(tmp_path / "skin" / "nv" / name)
    assert changed(config, folder) == f"1 image added (nv/{name}), 1 image removed (mel/{name})"


def test_of_many_changes_three_are_named(tmp_path: Path) -> None:
    config = an_experiment(tmp_path)
    folder = begin(config)
    names = by_side(folder)[0][:5]
    for seed, name in enumerate(names):
        draw(tmp_path / "images" / f"{name}.jpg", seed=60 + seed)
    shown = ", ".join(f"images/{name}.jpg" for name in names[:3])
    assert changed(config, folder) == f"5 images changed ({shown}, and 2 more)"


def test_the_labels_of_sealed_images_are_not_told_nor_the_seal_opened(tmp_path: Path) -> None:
    config = an_experiment(tmp_path, splits={"folds": 2, "test": 0.4, "calibration": 0.1})
    folder = begin(config)
    sealed = by_side(folder)[1][0]
    (tmp_path / "out" / "study" / "sealed" / "test.parquet").unlink()
    change_labels(tmp_path, {sealed: "nv" if int(sealed[1:]) % 4 < 2 else "mel"})
    assert changed(config, folder) == "sealed or dropped images, or their labels"
    draw(tmp_path / "images" / f"{sealed}.jpg", seed=90)
    assert changed(config, folder) == f"1 image changed (images/{sealed}.jpg)"


def test_a_later_audit_does_not_hide_what_changed(tmp_path: Path) -> None:
    config = an_experiment(tmp_path)
    folder = begin(config)
    seen, _ = by_side(folder)
    draw(tmp_path / "images" / f"{seen[0]}.jpg", seed=90)
    audit_data(config, tmp_path / "audit")
    assert changed(config, folder) == f"1 image changed (images/{seen[0]}.jpg)"
    draw(tmp_path / "images" / f"{seen[0]}.jpg", seed=int(seen[0][1:]))
    draw(tmp_path / "images" / "x1.jpg", seed=91)
    with (tmp_path / "metadata.csv").open("a") as table:
        table.write("x1,mel,L90\n")
    audit_data(config, tmp_path / "audit")
    assert changed(config, folder) == "41 images, there were 40"


def test_a_data_set_that_is_gone_is_said(tmp_path: Path) -> None:
    config = an_experiment(tmp_path)
    folder = begin(config)
    (tmp_path / "metadata.csv").unlink()
    with pytest.raises(DatasetError, match=r"metadata.csv: no such table; mend dataset.sources"):
        refuse_changed_data(config, folder)
