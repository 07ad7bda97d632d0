"""How much an experiment's decoded images take."""

from pathlib import Path

from search.config import ExperimentConfig, TableSource
from search.data.folders import EXTENSIONS
from search.portfolio import load_portfolio


def cache_bytes(config: ExperimentConfig) -> int:
    """Bytes of all maps of decoded images on one node: one for each image size; 0 if unknown."""
    recipes = load_portfolio(config.portfolio, n_classes=2).values()
    sizes = {params.image_size for params in (*recipes, *config.space.corners())}
    sizes |= {config.fidelity.image_size} if config.fidelity.image_size else set()
    needed = count_images(config) * sum(size * size * 3 for size in sizes)
    bound = config.cache_bytes
    return needed if bound is None else min(needed, bound)


def count_images(config: ExperimentConfig) -> int:
    """Images in the sources that lie on this machine; those in an object store are not counted."""
    return sum(
        _rows(source.table) if isinstance(source, TableSource) else _files(source.folder)
        for source in config.dataset.sources
    )


def _files(folder: Path | str) -> int:
    if not isinstance(folder, Path) or not folder.is_dir():
        return 0
    return sum(path.suffix.lower() in EXTENSIONS for path in folder.rglob("*"))


def _rows(table: Path | str) -> int:
    if not isinstance(table, Path) or not table.is_file():
        return 0
    if table.suffix.lower() in (".parquet", ".pq"):
        from pyarrow import parquet

        return int(parquet.read_metadata(table).num_rows)
    with table.open("rb") as lines:
        return max(sum(1 for _ in lines) - 1, 0)
