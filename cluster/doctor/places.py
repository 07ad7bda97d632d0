"""Checks, on a node, of the places that an experiment names: they need no GPU and leave no file."""

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from cluster.doctor.findings import Finding, refused
from cluster.doctor.measure import existing
from search.config import ExperimentConfig, TableSource
from search.errors import ConsiliumError
from search.location import Place, explained, open_place

STUDY = "study place"
PROBE = ".consilium-doctor"


def check_places(config: ExperimentConfig, mark: str | None = None) -> list[Finding]:
    """Every place that a node reads or writes.

    Args:
        mark: name of a file that the driver has put beside a local study; see `marked`.
    """
    return [
        check_study(config.study_folder, mark),
        *check_weights(config),
        *check_sources(config),
    ]


def check_study(place: Place, mark: str | None = None) -> Finding:
    """Whether a file can be written, read and deleted there, and the driver's is seen."""
    folder = existing(place) if isinstance(place, Path) else place
    found: list[Finding] = []
    mend = "grant this node's account reading, writing and deleting there"
    with refused(STUDY, mend, found), explained(folder):
        if mark is not None and not (folder / mark).exists():
            seen = f"{folder} is not the driver's folder"
            return Finding(STUDY, "broken", seen, "name s3:// under study, or a shared file system")
        _write_and_delete(folder / f"{PROBE}-{uuid.uuid4().hex}")
        found.append(Finding(STUDY, "ok", f"{place}: written, read, deleted"))
    return found[0]


def _write_and_delete(file: Place) -> None:
    content = uuid.uuid4().bytes
    file.write_bytes(content)
    try:
        if file.read_bytes() != content:
            raise ConsiliumError(f"{file} gives back other bytes than were written; check the disk")
    finally:
        file.unlink()


def weight_names(config: ExperimentConfig) -> list[str]:
    """Backbones whose weights the config's recipes or space take from the folder."""
    from search.portfolio import load_portfolio

    recipes = load_portfolio(config.portfolio, n_classes=2).values()
    asked = [p.backbone for p in (*recipes, *config.space.corners()) if p.weights == "folder"]
    return sorted(set(asked))


def check_weights(config: ExperimentConfig) -> list[Finding]:
    """The folder, and a file a backbone that is trained from it."""
    folder = config.weights.folder
    if folder is None:
        return []
    names = weight_names(config)
    missing = [
        f"{name}.safetensors" for name in names if not (folder / f"{name}.safetensors").is_file()
    ]
    if not folder.is_dir():
        mend = "copy it to every node, or mend weights.folder"
        return [Finding("weights", "broken", f"{folder} is not there", mend)]
    if missing:
        seen, mend = f"no {', '.join(missing)} in {folder}", "put timm's weights there"
        return [Finding("weights", "broken", seen, mend)]
    return [Finding("weights", "ok", f"{len(names)} files in {folder}")]


def check_sources(config: ExperimentConfig) -> Iterator[Finding]:
    """Tables and image folders: all nodes decode images."""
    mend = "mount it on every node, or put it in an object store and name its URL"
    for location in _locations(config):
        place = open_place(str(location))
        found: list[Finding] = []
        with refused("images", mend, found), explained(place):
            there = place.exists()
            seen = f"{place}" if there else f"{place} is not there"
            found.append(
                Finding("images", "ok" if there else "broken", seen, "" if there else mend)
            )
        yield found[0]


def _locations(config: ExperimentConfig) -> Sequence[Path | str]:
    locations: list[Path | str] = []
    for source in config.dataset.sources:
        if isinstance(source, TableSource):
            locations += [source.table, *source.images]
        else:
            locations.append(source.folder)
    return locations
