"""A pipeline whose search and build are quick fakes; its data, bundles, gate and state are real."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml

from cluster.pipeline.config import pipeline_config
from cluster.pipeline.flow import Report, run_pipeline
from cluster.pipeline.work import Name, Work
from ensemble.bundle import load_bundle
from ensemble.evaluation.results import Estimate
from search.atomic import write_json
from search.config import load_config
from search.params import Params
from search.study.records import StudyFolder, StudyHead, TrialRecord
from search.study.sealed import count_openings
from search.tables import write_table
from tests.cluster.pipeline.fakes import Clock, FakeAdmin
from tests.experiments import DOCUMENT
from tests.tiny import CLASSES, tiny_image


@dataclass
class Site:
    """One experiment's folder.

    Attributes:
        variants: folders of bundles; the next build gives the first of them, and then it is gone.
        calls: what the fakes were asked to do.
    """

    folder: Path
    document: dict[str, Any]
    variants: list[Path]
    admin: FakeAdmin | None = None
    clock: Clock = field(default_factory=Clock)
    calls: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "tiny.yaml"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def study(self) -> StudyFolder:
        return StudyFolder(self.out / "study")

    @property
    def openings(self) -> int:
        return count_openings(self.study)

    def write(self, **changes: Any) -> None:
        """Change the experiment's YAML."""
        self.document |= changes
        self.config.write_text(yaml.safe_dump(self.document))

    def take(self, until: Name = "canary", trials: str | None = None) -> Report:
        """Run the pipeline; each time what was called is counted anew."""
        self.calls.clear()
        settings = load_config(self.config)
        config = pipeline_config(self.config, settings)
        around = self.clock.around()
        work = Work(
            self.config, settings, config, trials=trials, say=self.clock.said.append, around=around
        )
        return run_pipeline(work, until=until)

    def statuses(self, until: Name = "canary", trials: str | None = None) -> dict[str, str]:
        return {row.step: row.status for row in self.take(until, trials).rows}

    def search(self, settings: Any, *, trials: str | None = None, **_: Any) -> list[Any]:
        """As many trials as are asked for, of which each is a record."""
        self.calls.append("search")
        if not self.study.exists():
            self._begin()
        for number in range(int(trials or settings.budget.trials)):
            params = Params.model_validate({"backbone": "cnn", "image_size": 16})
            self.study.write_record(
                TrialRecord(number=number, status="complete", params=params, fold=0, value=0.5)
            )
        return []

    def build(self, settings: Any, *_: Any) -> Any:
        """The next variant, in the place of the bundle."""
        self.calls.append("build")
        shutil.rmtree(settings.bundle_folder, ignore_errors=True)
        variant = self.variants.pop(0) if len(self.variants) > 1 else self.variants[0]
        shutil.copytree(variant, settings.bundle_folder)
        return SimpleNamespace(bundle=load_bundle(settings.bundle_folder))

    def evaluate(self, _: Path, settings: Any, output: Path, **__: Any) -> Any:
        """Made-up numbers, beside a file that stands for the real ones."""
        self.calls.append(f"evaluate {settings.name}")
        write_json(output / "evaluation.json", {})
        values = {"nll": Estimate(value=0.5), "auroc": Estimate(value=0.9)}
        return SimpleNamespace(n_images=16, seen=0, metrics=values)

    def _begin(self) -> None:
        rows = []
        for i in range(40):
            path = self.folder / f"{i}.png"
            tiny_image(i).save(path)
            rows.append({"image": str(i), "path": str(path), "label": i % 2, "group": i})
        write_table(self.study.path / "sealed" / "test.parquet", pd.DataFrame(rows))
        self.study.write_head(
            StudyHead(
                name="tiny",
                created="",
                classes=CLASSES,
                positive="malignant",
                objective="nll",
                seed=0,
                data_digest="d",
                splits_hash="s",
                n_images={},
                versions={},
            )
        )


def write_site(folder: Path, data: Path, variants: list[Path]) -> Site:
    """An experiment on a copy of these data."""
    shutil.copytree(data, folder / "data")
    site = Site(folder, dict(DOCUMENT), variants)
    site.write()
    return site


def wire(site: Site, patched: pytest.MonkeyPatch) -> Site:
    """Let the fakes stand in the place of the steps, and the admin in that of a service."""

    @contextmanager
    def no_ray(*_: Any, **__: Any) -> Iterator[None]:
        yield

    @contextmanager
    def fake_service(config: Any) -> Iterator[FakeAdmin | None]:
        yield site.admin if config.service else None

    patched.setattr("cluster.connect.connected", no_ray)
    patched.setattr("cluster.steps.search_trials", site.search)
    patched.setattr("cluster.steps.report_study", lambda *_: "")
    patched.setattr("cluster.steps.build", site.build)
    patched.setattr("cluster.steps.evaluate_bundle", site.evaluate)
    patched.setattr("cluster.pipeline.flow.open_service", fake_service)
    return site
