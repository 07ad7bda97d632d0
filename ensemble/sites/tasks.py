"""All sites as Ray tasks, as many at once as fit. The only file here that knows Ray."""

import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import ray
from ray.exceptions import RayError, RayTaskError

from ensemble.decision.choose import describe
from ensemble.evaluation.subgroups import UNKNOWN
from ensemble.sites.folder import read_site, write_site
from ensemble.sites.plan import Plan, leave_out
from ensemble.sites.results import SiteResult, SitesResult, summary
from search.atomic import write_json
from search.data.cache import Progress, cache_rows
from search.errors import ConsiliumError, StudyError
from search.study.resources import Slots
from search.training.backbones import preprocessing_of

RETRIES = 3  # of a task whose worker or node dies
POLL = 1.0  # seconds

Say = Callable[[SiteResult], None]


def evaluate_sites(
    plan: Plan,
    output: Path,
    *,
    progress: Progress = lambda *_: None,
    say: Say = lambda _: None,
) -> SitesResult:
    """Leave out each site of a plan; what is there already of the same plan is not done again.

    Ray must be running where a site is missing.

    Args:
        output: receives sites/<value>.json and .parquet, and sites.json.
        progress: called with (sites done, sites in all).
        say: called with each result as it is there.

    Raises:
        ConsiliumError: the first failure, once the other sites are done.
    """
    names, done = plan.column.left_out, finished_sites(plan, output)
    progress(len(done), len(names))

    def keep(result: SiteResult, probs: pd.DataFrame) -> None:
        write_site(output / "sites", result, probs)
        done[result.site] = result
        progress(len(done), len(names))
        say(result)

    if missing := [name for name in names if name not in done]:
        _train_all(plan, missing, keep)
    result = conclude(plan, [done[name] for name in names])
    write_json(output / "sites.json", result.model_dump(mode="json"))
    return result


def finished_sites(plan: Plan, output: Path) -> dict[str, SiteResult]:
    """Results that are there already, of this very plan, by site."""
    found = {
        name: read_site(output / "sites", name, plan.digest(name)) for name in plan.column.left_out
    }
    return {name: result for name, result in found.items() if result is not None}


def conclude(plan: Plan, sites: list[SiteResult]) -> SitesResult:
    """All sites of a plan, with their mean and the worst."""
    means, worst = summary(sites)
    column, positive = plan.column, plan.how.positive
    points = list(plan.how.points.values())
    return SitesResult(
        name=plan.config.name,
        column=column.name,
        trial=plan.record.number,
        backbone=plan.record.params.backbone,
        classes=list(plan.classes),
        positive=None if positive is None else plan.classes[positive],
        promise=describe(points[0]) if points else None,
        min_cases=plan.min_cases,
        n_unknown=sum(site == UNKNOWN for site in column.sites),
        not_left_out=dict(column.kept),
        sites=sites,
        mean=means,
        worst=worst,
    )


def _train_all(
    plan: Plan, sites: list[str], keep: Callable[[SiteResult, pd.DataFrame], None]
) -> None:
    resources = plan.config.resources
    with closing(Slots(resources.model_copy(update={"workers": 1}))):  # or not one fits
        _train_each(plan, sites, keep)


def _train_each(
    plan: Plan, sites: list[str], keep: Callable[[SiteResult, pd.DataFrame], None]
) -> None:
    resources = plan.config.resources
    # Decoded once here: the tasks of this node open the map, and do not wait for one another.
    cache_rows(
        plan.images,
        preprocessing_of(plan.record.params),
        plan.config.cache_folder,
        limit=plan.config.cache_bytes,
    )
    task = ray.remote(_leave_out).options(
        num_cpus=resources.cpu, num_gpus=resources.gpu, max_retries=RETRIES
    )
    running: dict[Any, str] = {task.remote(plan, site): site for site in sites}
    failure: ConsiliumError | None = None
    try:
        while running:
            ready, _ = ray.wait(list(running), timeout=POLL)
            for ref in ready:
                site = running.pop(ref)
                try:
                    keep(*ray.get(ref))
                except RayError as error:
                    failure = failure or _explained(site, error)
    finally:
        for ref in running:
            ray.cancel(ref, force=True)
    if failure is not None:
        raise failure


def _leave_out(plan: Plan, site: str) -> tuple[SiteResult, pd.DataFrame]:
    logging.getLogger().setLevel(logging.ERROR)
    return leave_out(plan, site, threads=plan.config.resources.cpu)


def _explained(site: str, error: RayError) -> ConsiliumError:
    """One line about a site that failed; a fault of the code's own comes through."""
    cause = error.cause if isinstance(error, RayTaskError) else None
    if isinstance(error, RayTaskError) and not isinstance(cause, ConsiliumError | OSError):
        raise error
    reason = " ".join(str(cause or error).split())[:300] or type(error).__name__
    return StudyError(f"site {site!r}: {reason}; the same command does only what is missing")
