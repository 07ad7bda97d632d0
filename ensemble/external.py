"""A bundle on any labelled set of images: external validation."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ensemble.bundle import Bundle
from ensemble.evaluation.assess import Cases, assess
from ensemble.evaluation.examples import worst_examples
from ensemble.evaluation.results import Evaluation
from ensemble.evaluation.robustness import measure_corruptions, member_contributions
from ensemble.evaluation.score import Progress, score_images
from ensemble.pages.report import write_report
from ensemble.pages.story import Story
from ensemble.runtime import Runtime, at_prevalence
from ensemble.seen import seen_among
from search.atomic import finite, write_json
from search.data.dataset import Dataset
from search.data.links import components, key_pairs
from search.errors import DatasetError

THREADS = 2
SEED = 0
NOTE = (
    "Probabilities are shifted to where the share of images is {}. Decisions go by the unshifted "
    "ones, which the thresholds were chosen for; PPV and NPV are those of these images."
)


@dataclass(frozen=True)
class External:
    """How to look at a labelled set.

    Attributes:
        name: of the set.
        prevalence: class: share where the probabilities are to hold; the bundle's if empty.
        corruptions: images that are made worse; 0: none.
        examples: wrong images shown.
    """

    name: str
    prevalence: Mapping[str, float]
    corruptions: int = 0
    examples: int = 12


def evaluate_external(
    bundle: Bundle,
    dataset: Dataset,
    how: External,
    output: Path,
    *,
    progress: Progress = lambda _done, _n: None,
) -> Evaluation:
    """Score a labelled set and write evaluation.json and report.html into a folder.

    Raises:
        DatasetError: a class that the bundle does not know, no readable image, or only images that
            the bundle was made from.
        ConfigError: a prevalence of an unknown class, or one that is no share.
    """
    at_prevalence(bundle, np.empty((0, len(bundle.manifest.classes))), how.prevalence)
    if output.is_file():  # before the work, not after it
        raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(output))
    dataset, n_seen = _unseen(bundle, dataset)
    labels, runtime = match_classes(bundle, dataset), Runtime(bundle)
    paths = dataset.table["path"].tolist()
    scored = score_images(runtime, paths, threads=THREADS, progress=progress)
    table = dataset.table.iloc[scored.rows].reset_index(drop=True)
    groups = _groups(dataset)[scored.rows]
    unshifted = runtime.pooled(scored.scores).probs
    probs = at_prevalence(bundle, unshifted, how.prevalence) if how.prevalence else unshifted
    cases = Cases(probs, labels[scored.rows], groups, table, decided_on=unshifted)
    evaluation = assess(bundle, cases, skipped=scored.skipped)
    evaluation = evaluation.model_copy(
        update={
            "seen": n_seen,
            "contributions": member_contributions(
                bundle, scored.scores.member_probs, cases.labels, groups
            ),
            "corruptions": _corruptions(runtime, cases, how.corruptions),
        }
    )
    _write(bundle, evaluation, cases, how, output)
    return evaluation


def _unseen(bundle: Bundle, dataset: Dataset) -> tuple[Dataset, int]:
    """The images that the bundle was not made from, and how many it was."""
    if bundle.manifest.seen_file is None:
        return dataset, 0
    seen = seen_among(bundle.folder, dataset.table["path"].tolist())
    if seen.all():
        raise DatasetError(
            f"all {len(seen)} images were trained, chosen or calibrated on by this bundle; an "
            "evaluation needs others"
        )
    return replace(dataset, table=dataset.table[~seen].reset_index(drop=True)), int(seen.sum())


def match_classes(bundle: Bundle, dataset: Dataset) -> NDArray[np.int64]:
    """A data set's labels as the bundle's class indices, (n_images,).

    Raises:
        DatasetError: the data set has a class that the bundle does not know.
    """
    classes = bundle.manifest.classes
    for name in dataset.classes:
        if name not in classes:
            raise DatasetError(
                f"the data's class {name!r} is none of the bundle's ({', '.join(classes)}); "
                "map the raw labels to these under dataset.classes"
            )
    index = np.array([classes.index(name) for name in dataset.classes])
    matched: NDArray[np.int64] = index[dataset.labels]
    return matched


def _groups(dataset: Dataset) -> NDArray[np.int64]:
    """Images of one lesion or one patient share a group, (n_images,)."""
    links = [key_pairs(dataset.table[name].tolist()) for name in ("lesion", "patient")]
    return components(len(dataset.table), *links)


def _corruptions(runtime: Runtime, cases: Cases, count: int) -> list[object]:
    if not count:
        return []
    some = cases.table.sample(min(count, len(cases.table)), random_state=SEED).index.to_numpy()
    paths = cases.table["path"].iloc[some].tolist()
    return list(
        measure_corruptions(runtime, paths, cases.labels[some], cases.groups[some], threads=THREADS)
    )


def _write(
    bundle: Bundle, evaluation: Evaluation, cases: Cases, how: External, output: Path
) -> None:
    manifest = bundle.manifest
    document = evaluation.model_dump(mode="json") | {
        "bundle": manifest.digest,
        "config": how.name,
        "at_prevalence": dict(how.prevalence),
    }
    write_json(output / "evaluation.json", finite(document))
    shares = ", ".join(f"{share:g} {name}" for name, share in how.prevalence.items())
    notes = [NOTE.format(shares)] if how.prevalence else []
    if evaluation.seen:
        notes.append(f"{evaluation.seen} images are left out: the bundle was made from them.")
    story = Story(
        title=f"{manifest.name} {manifest.version} on {how.name}",
        evaluation=evaluation,
        probs=cases.probs,
        labels=cases.labels,
        manifest=manifest,
        examples=worst_examples(cases, bundle, count=how.examples),
        notes=notes,
    )
    write_report(output / "report.html", story)
