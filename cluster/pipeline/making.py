"""The steps that make a bundle: search, ensemble, evaluate."""

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from cluster.pipeline.inputs import data_state, digest_of, sections, study_state
from cluster.pipeline.state import Inputs, Outcome
from cluster.pipeline.work import Name, Result, Work
from search.config import ExperimentConfig, load_config
from search.errors import BundleError, ConfigError


@dataclass(frozen=True)
class Search:
    """Trials until the budget is used."""

    on: Work
    name: Name = "search"

    def needless(self) -> str | None:
        return None

    def inputs(self) -> Inputs:
        return {
            "config": sections(self.on.settings, without=("ensemble",)),
            "data": data_state(self.on.settings.dataset),
            "trials": self.on.trials,
        }

    def stands(self, outcome: Outcome) -> bool:
        extends = (self.on.trials or "").startswith("+")  # so many more, each time it is said
        return not extends and study_state(self.on.study)["trials"] >= outcome["trials"] > 0

    def work(self, _: datetime) -> Result:
        from cluster.connect import connected
        from cluster.steps import report_study, search_trials

        with connected(self.on.address, grows=self.on.settings.resources.grow is not None):
            search_trials(self.on.settings, trials=self.on.trials, mode=self.on.mode)
            report_study(str(self.on.settings.study_folder))
        found = study_state(self.on.study)
        return Result(f"{found['trials']} trials", found)


@dataclass(frozen=True)
class Ensemble:
    """One bundle from the study."""

    on: Work
    name: Name = "ensemble"

    def needless(self) -> str | None:
        return None

    def inputs(self) -> Inputs:
        return {
            "config": sections(self.on.settings, without=("budget",)),
            "study": study_state(self.on.study)["digest"],
        }

    def stands(self, outcome: Outcome) -> bool:
        try:
            return bool(self.on.digest == outcome["digest"])
        except BundleError:
            return False

    def work(self, _: datetime) -> Result:
        from cluster.steps import build

        self.on.__dict__.pop("bundle", None)  # the one that stood there before
        built = build(self.on.settings, self.on.path)
        manifest = built.bundle.manifest
        outcome = {"digest": manifest.digest, "bundle": str(built.bundle.folder)}
        return Result(f"bundle {manifest.digest[:12]}, {len(manifest.members)} members", outcome)


@dataclass(frozen=True)
class Evaluate:
    """The bundle on other labelled sets."""

    on: Work
    name: Name = "evaluate"

    def needless(self) -> str | None:
        return None if self.on.config.evaluate else "pipeline.evaluate names no data set"

    @cached_property
    def sets(self) -> dict[str, ExperimentConfig]:
        """By name.

        Raises:
            ConfigError: a config is wrong, or two have one name.
        """
        found: dict[str, ExperimentConfig] = {}
        for path in self.on.config.evaluate:
            settings = load_config(path)
            if settings.name in found:
                raise ConfigError(f"{path}: pipeline.evaluate has {settings.name!r} twice; rename")
            found[settings.name] = settings
        return found

    def inputs(self) -> Inputs:
        sets = {
            name: [digest_of(one.dataset.model_dump(mode="json")), data_state(one.dataset)]
            for name, one in self.sets.items()
        }
        return {"bundle": self.on.digest, **sets}

    def stands(self, _: Outcome) -> bool:
        return all((self.folder(name) / "evaluation.json").is_file() for name in self.sets)

    def work(self, _: datetime) -> Result:
        from cluster.steps import evaluate_bundle

        outcome: Outcome = {}
        for name, settings in self.sets.items():
            self.on.say(f"evaluate: {name}")
            found = evaluate_bundle(
                self.on.bundle.folder, settings, self.folder(name), prevalence={}, corruptions=0
            )
            metrics = {key: found.metrics[key].value for key in ("nll", "auroc")}
            outcome[name] = {"images": found.n_images, "seen": found.seen, **metrics}
        return Result(
            ", ".join(f"{name}: {_figures(one)}" for name, one in outcome.items()), outcome
        )

    def folder(self, name: str) -> Path:
        return self.on.settings.output / "evaluations" / name


def _figures(one: dict[str, Any]) -> str:
    known = {key: one[key] for key in ("nll", "auroc") if one[key] is not None}
    return " ".join(f"{key} {value:.3f}" for key, value in known.items())
