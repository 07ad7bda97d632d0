"""What a bundle's folder may hold: the files on its list, as they were, and no code."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import SEEK_END
from pathlib import Path, PurePosixPath
from typing import Any

from search.errors import BundleError

MOST_FILES = 10_000
SUFFIXES = (".json", ".safetensors", ".onnx", ".png", ".md", ".html", ".jpg")  # hold no code
REFUSED = {
    **{b"\x80" + bytes([protocol]): "a pickle" for protocol in range(2, 6)},
    b"PK\x03\x04": "an archive",  # torch.save's, and .pt2
    b"\x1f\x8b": "an archive",
}


def verify_files(
    folder: Path, listed: Mapping[str, str], used: Iterable[str], *, index: str
) -> None:
    """Hold a folder against its list.

    What could run code, or reads other files, is refused even where its hash is right: whoever
    made the list may have put it there.

    Args:
        listed: SHA-256 by relative path.
        used: relative paths of the files that will be loaded.
        index: name of the file that holds the list, and is not on it.

    Raises:
        BundleError: naming the first file that is not as it should be.
    """
    for name in listed:
        _refuse_name(name, folder, index)
    for name in used:
        if name not in listed:
            raise BundleError(f"{folder}: member file {name} is not listed; build it again")
    found = _names_found(folder)
    for name in sorted(found - {index, *listed}):
        raise BundleError(f"{folder / name}: not listed in {index}; take the file away")
    for name, expected in listed.items():
        path = folder / name
        if name not in found:
            raise BundleError(f"{path}: missing from the bundle; build it again")
        if sha256(path) != expected:
            raise BundleError(f"{path}: changed since it was built; build the bundle again")
        _refuse_content(path)


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_name(name: str, folder: Path, index: str) -> None:
    pure = PurePosixPath(name)
    inside = not pure.is_absolute() and ".." not in pure.parts and "\\" not in name
    if not inside or pure.as_posix() != name or not name.isprintable():
        raise BundleError(f"{folder}: the path {name!r} leaves the bundle; build it again")
    if name == index:
        raise BundleError(f"{folder}: {index} lists itself; build the bundle again")
    if pure.suffix not in SUFFIXES:
        raise BundleError(
            f"{folder / name}: a bundle holds no {pure.suffix or 'such'} files, "
            f"only {', '.join(SUFFIXES)}; build it again"
        )


def _names_found(folder: Path) -> set[str]:
    """Relative paths of the files that are there: plain files, no links, not too many."""
    names = set()
    for count, entry in enumerate(folder.rglob("*")):
        if count >= MOST_FILES:
            raise BundleError(f"{folder}: more than {MOST_FILES} files; build the bundle again")
        if entry.is_symlink():
            raise BundleError(f"{entry}: a link; a bundle holds its files itself, build it again")
        if entry.is_dir():
            continue
        if not entry.is_file():  # reading a pipe would never end
            raise BundleError(f"{entry}: not a plain file; take it away")
        names.add(entry.relative_to(folder).as_posix())
    return names


def _refuse_content(path: Path) -> None:
    """What a listed file must not be: a pickle, an archive of them, a graph that reads others."""
    with path.open("rb") as file:
        start = file.read(9)
        size = file.seek(0, SEEK_END)
    if path.suffix == ".safetensors":
        # Its first eight bytes are a length, which may well look like the start of a pickle.
        if start[8:] != b"{" or int.from_bytes(start[:8], "little") > size - 8:
            raise BundleError(f"{path}: no safetensors; build the bundle again")
        return
    kind = next((kind for begins, kind in REFUSED.items() if start.startswith(begins)), None)
    if kind is not None:
        raise BundleError(f"{path}: {kind}, which could run code; build the bundle again")
    if path.suffix == ".onnx":
        _refuse_external(path)
    if path.suffix == ".json":
        _refuse_no_json(path)


def _refuse_no_json(path: Path) -> None:
    """An old pickle is text, too."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: no JSON; build the bundle again") from error


def _refuse_external(path: Path) -> None:
    import onnx

    try:
        graph = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own
        raise BundleError(f"{path}: no ONNX graph; build the bundle again") from error
    for tensor in _tensors(graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
            raise BundleError(
                f"{path}: tensor {tensor.name!r} lies in another file; build the bundle again"
            )


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in an ONNX message, wherever it is: initialisers, attributes, functions."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else [value]:
                yield from _tensors(part)
