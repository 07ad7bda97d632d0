"""Images good and bad in a folder, and tables about them."""

import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tests.tiny import tiny_bytes, tiny_image

# By name: the kind of error that its row gets.
BAD = {
    "absent": "missing",
    "empty.jpg": "unreadable",
    "text.png": "unreadable",
    "short.jpg": "truncated",
    "huge.png": "too large",
    "folder.jpg": "unreadable",
}


def write_images(folder: Path, count: int) -> list[str]:
    """So many good images; their names without an extension."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        (folder / f"image_{seed:03d}.png").write_bytes(tiny_bytes(seed))
    return [f"image_{seed:03d}" for seed in range(count)]


def write_bad_images(folder: Path) -> list[str]:
    """What BAD names."""
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("no image at all")
    tiny_image(0, (200, 200)).save(folder / "short.jpg", quality=95)
    whole = (folder / "short.jpg").read_bytes()
    (folder / "short.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (8000, 8000)).save(folder / "huge.png")
    (folder / "folder.jpg").mkdir()
    return list(BAD)


def write_table(path: Path, names: Sequence[str]) -> Path:
    """A CSV of names with an age and a code that has leading zeros."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "image", "code"])
        writer.writerows([60 + i, name, f"{i:04d}"] for i, name in enumerate(names))
    return path
