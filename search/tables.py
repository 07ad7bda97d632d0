"""Tables as Parquet, weights as safetensors: written whole, read with one clear line of error."""

import io
from collections.abc import Mapping

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from search.atomic import write_bytes
from search.errors import StudyError
from search.location import Place, read_bytes


def write_tensors(path: Place, state: Mapping[str, Tensor]) -> None:
    """Write safetensors whole; through bytes, so that a full disk is the OSError it is."""
    write_bytes(path, save({name: value.contiguous() for name, value in state.items()}))


def read_tensors(path: Place) -> dict[str, Tensor]:
    """Read safetensors.

    Raises:
        FileNotFoundError: it is not there.
        StudyError: it is damaged.
    """
    try:
        state: dict[str, Tensor] = load(read_bytes(path))
    except SafetensorError as error:
        raise StudyError(f"{path}: damaged; search into another output folder") from error
    return state


def write_table(path: Place, table: pd.DataFrame) -> None:
    """Write Parquet whole."""
    write_bytes(path, table.to_parquet(None, index=False))


def read_table(path: Place) -> pd.DataFrame:
    """Read Parquet; missing text is None.

    Raises:
        StudyError: it is not there or damaged.
    """
    try:
        table = pd.read_parquet(io.BytesIO(read_bytes(path)))
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: missing or damaged; rerun consilium search") from error
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            table[name] = table[name].astype(object).where(table[name].notna(), None)
    return table
