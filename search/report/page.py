"""The page of a study: what was tried, what came of it, what it cost; opens without a network."""

from pathlib import Path

import optuna

from search.location import Place
from search.report.canvas import label, plural, words, write_charts_page
from search.report.failures import failures_of
from search.report.leaderboard import board_columns, board_rows, is_sound, ranked
from search.report.results import Results, facts_of, read_results
from search.report.sections import sections_of
from search.study.records import StudyFolder

SHOWN = 50  # rows of the leaderboard before it is opened


def write_study_report(path: Place, folder: StudyFolder, study: optuna.Study | None) -> None:
    """Write the page as one file that loads nothing.

    Args:
        study: of the folder's storage, for the importance of params; None leaves that out.

    Raises:
        StudyError: there is no study in the folder, or a record is damaged.
    """
    results = read_results(folder)
    positive = results.head.positive is not None
    columns = board_columns(results.records, results.objectives, positive=positive)
    sections = sections_of(results, study)
    write_charts_page(
        path,
        Path(__file__).parent,
        charts=[chart for section in sections for chart in section.charts],
        name=results.head.name,
        facts=facts_of(results),
        columns=columns,
        rows=board_rows(results.records, columns, results.objectives[0]),
        ranking=_ranking(results),
        constraints=_constraints(results),
        shown=SHOWN,
        sections=sections,
        failures=failures_of(results.everything),
    )


def _ranking(results: Results) -> str:
    objective = results.objectives[0]
    place = len(ranked(results.records, objective))
    return (
        f"{place:,} of {plural(len(results.records), 'trial')} "
        f"{'has' if place == 1 else 'have'} a rank, by {words(objective)} at the best epoch "
        "on fold 0. Metrics are of that epoch; a click on a heading sorts."
    )


def _constraints(results: Results) -> str:
    if results.config is None:
        return "Constraints are not known: config.yaml cannot be read."
    bounds = [f"{label(n)} ≤ {bound:g}" for n, bound in results.config.constraints.items()]
    if not bounds:
        return "No constraint was set."
    broken = sum(bool(record.violations) for record in results.records)
    told = f"{'; '.join(bounds)}: {plural(broken, 'trial')} above, without a rank."
    sound = [record for record in results.records if is_sound(record)]
    infeasible = sound and all(record.violations for record in sound)
    return told + (" No trial is feasible." if infeasible else "")
