"""One experiment with one site left out at a time: what is asked for, and one site's answer."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ensemble.config import EnsembleConfig
from ensemble.sites.division import (
    Column,
    Division,
    choose_column,
    divide_site,
    division_problem,
)
from ensemble.sites.judging import Cases, How, Judged, judge
from ensemble.sites.results import SiteResult
from ensemble.sites.training import Answers, best_trial, train_without
from search.config import ExperimentConfig, SplitsConfig
from search.errors import StudyError
from search.study.identity import refuse_other
from search.study.records import StudyFolder, TrialRecord

FORMAT = 1  # raise it when the same plan gives other numbers
HELD_BACK = 0.25  # of the others, where the config holds nothing back itself
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """What is trained and judged, and by which column; small enough to be sent to a worker.

    Attributes:
        by: the column that was asked for.
    """

    config: ExperimentConfig
    record: TrialRecord
    classes: tuple[str, ...]
    how: How
    by: str | None
    min_cases: int

    @cached_property
    def images(self) -> pd.DataFrame:
        """Open images of the folds and the calibration slice; the sealed test is not among them."""
        return StudyFolder(self.config.study_folder).open_images()

    @cached_property
    def column(self) -> Column:
        """The column of sites; one whose others are too few is kept, too.

        Raises:
            StudyError: as `choose_column`, or the others are too few without any of them.
        """
        found = choose_column(
            self.images, self.by, positive=self.how.positive, min_cases=self.min_cases
        )
        problems = {site: self._problem(found, site) for site in found.left_out}
        kept = {site: problem for site, problem in problems.items() if problem is not None}
        if len(kept) == len(problems):
            site, problem = next(iter(kept.items()))
            raise StudyError(
                f"no site of column {found.name} can be left out: without {site}, {problem}; "
                "name another column by --by, or gather more images"
            )
        return replace(
            found,
            left_out=[site for site in found.left_out if site not in kept],
            kept={**found.kept, **kept},
        )

    def division(self, site: str) -> Division:
        return self._divide(self.column, site)

    def digest(self, site: str) -> str:
        """SHA-256 of what decides a site's numbers: params, images, their division, the point."""
        division, images = self.division(site), self.images
        role = np.empty(len(images), dtype=object)
        for name in ("train", "held_back", "left_out", "dropped"):
            role[getattr(division, name)] = name
        columns = (images["image"], images["digest"], images["label"], images["group"])
        points = {name: point.model_dump(mode="json") for name, point in self.how.points.items()}
        asked = [
            *(FORMAT, site, self.column.name, self.classes, self.how.positive, points),
            *(self.how.replicates, self.how.seed, self.config.fidelity.max_epochs),
            self.config.weights.model_dump(mode="json"),
            self.record.model_dump(mode="json", include={"params", "best_epoch"}),
            [epoch.get("nll") for epoch in self.record.epochs],
            [[str(value) for value in row] for row in zip(*columns, role, strict=True)],
        ]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def _divide(self, column: Column, site: str) -> Division:
        return divide_site(
            self._labels,
            self._groups,
            column.sites,
            site,
            share=_share(self.config.splits),
            seed=self.config.seed,
        )

    def _problem(self, column: Column, site: str) -> str | None:
        return division_problem(
            self._divide(column, site),
            self._labels,
            self._groups,
            classes=self.classes,
            positive=self.how.positive,
        )

    @property
    def _labels(self) -> Ints:
        return self.images["label"].to_numpy(np.int64)

    @property
    def _groups(self) -> Ints:
        return self.images["group"].to_numpy(np.int64)


def plan_sites(
    config: ExperimentConfig,
    ensemble: EnsembleConfig,
    *,
    by: str | None = None,
    trial: int | None = None,
    min_cases: int = 20,
) -> Plan:
    """A plan for a finished study.

    Args:
        by: a column; None: source or site.
        trial: whose params; None: the best finished one by the study's objective.

    Raises:
        StudyError: no study, another experiment's, no such trial, no such column, or too few sites.
    """
    study = StudyFolder(config.study_folder)
    head = study.head()
    refuse_other(config, study)
    positive = None if head.positive is None else head.classes.index(head.positive)
    first = list(ensemble.operating_points.items())[:1] if positive is not None else []
    how = How(positive, dict(first), replicates=ensemble.bootstrap, seed=config.seed)
    record = best_trial(study, trial)
    plan = Plan(config, record, tuple(head.classes), how, by, min_cases)
    _ = plan.column  # refuses at once
    return plan


def leave_out(plan: Plan, site: str, *, threads: int = 1) -> tuple[SiteResult, pd.DataFrame]:
    """Train and choose without a site, and look at it. Needs no Ray.

    Returns:
        The result, and a row an image: image, side (home, away), label, and the network's own
        probability a class, before the calibrator.
    """
    images, division = plan.images, plan.division(site)
    answers = train_without(
        plan.config, plan.record, images, division, n_classes=len(plan.classes), threads=threads
    )
    home = _cases(images, division.held_back, answers.home)
    away = _cases(images, division.left_out, answers.away)
    judged = judge(home, away, plan.how)
    return _result(plan, site, judged, answers.seconds), _table(plan, division, answers)


def _result(plan: Plan, site: str, judged: Judged, seconds: float) -> SiteResult:
    division, points = plan.division(site), judged.decided.operating_points
    return SiteResult(
        site=site,
        digest=plan.digest(site),
        n_trained=len(division.train),
        n_dropped=len(division.dropped),
        calibrator=judged.decided.calibrator,
        point=points[0] if points else None,
        away=judged.away,
        home=judged.home,
        difference=judged.difference,
        held=judged.held,
        seconds=seconds,
    )


def _cases(images: pd.DataFrame, rows: Ints, probs: NDArray[np.float32]) -> Cases:
    part = images.iloc[rows]
    return Cases(probs, part["label"].to_numpy(np.int64), part["group"].to_numpy(np.int64))


def _table(plan: Plan, division: Division, answers: Answers) -> pd.DataFrame:
    def side(name: str, rows: Ints, probs: NDArray[np.float32]) -> pd.DataFrame:
        part = plan.images.iloc[rows]
        columns: dict[str, Any] = {name: probs[:, k] for k, name in enumerate(plan.classes)}
        about = {"image": part["image"].to_numpy(), "label": part["label"].to_numpy()}
        return pd.DataFrame({**about, "side": name, **columns})

    sides = (
        side("home", division.held_back, answers.home),
        side("away", division.left_out, answers.away),
    )
    return pd.concat(sides, ignore_index=True)


def _share(splits: SplitsConfig) -> float:
    """Of the others, as much as the config holds back of all that is not sealed."""
    return splits.calibration / (1 - splits.test) if splits.calibration else HELD_BACK
