"""Images that are not lesions: drawn, or cut from the two photographs that scikit-learn brings."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from search.data.lesion import OVERSAMPLING, draw_skin, photograph
from search.data.transforms import decode
from search.errors import DamagedImageError, DatasetError

Kind = Literal["noise", "gradients", "stripes", "text", "photographs", "shapes", "skin"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Pixels = NDArray[np.uint8]

WORDS = [
    "name",
    "date",
    "of",
    "birth",
    "clinic",
    "report",
    "referral",
    "left",
    "right",
    "upper",
    "lower",
    "back",
    "arm",
    "biopsy",
    "result",
    "pending",
    "invoice",
    "total",
    "page",
    "signed",
    "doctor",
    "patient",
    "address",
    "telephone",
    "normal",
    "routine",
    "2024",
]


def not_lesions(kind: Kind, count: int, *, size: int = 224, seed: int = 0) -> list[Image.Image]:
    """Make square images of one kind; the same arguments give the same pixels.

    noise: independent pixels. gradients: two colours, one into the other. stripes: or checkers.
    text: printed words on paper. photographs: crops of a flower and of a Chinese temple.
    shapes: discs, boxes and triangles. skin: hairs and light as in the synthetic dataset, but no
    lesion.

    Args:
        size: pixels a side, at least 32.
        seed: image i depends on kind, size, seed and i alone.

    Raises:
        ValueError: for another kind or a smaller size.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; it is {kind!r}")
    if size < 32:
        raise ValueError(f"size must be at least 32, it is {size}")
    rngs = (np.random.default_rng([seed, KINDS.index(kind), i]) for i in range(count))
    return [Image.fromarray(_DRAW[kind](rng, size)) for rng in rngs]


def read_folder(folder: Path, limit: int = 200) -> list[Image.Image]:
    """Decode images below a folder, at most `limit`, drawn at random but always the same.

    What cannot be decoded is passed over.

    Raises:
        DatasetError: no folder, or no readable image in it.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; name one with images that are not lesions")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found: list[Image.Image] = []
    for i in np.random.default_rng(0).permutation(len(paths)):
        if len(found) == limit:
            break
        try:
            found.append(decode(paths[i]))
        except DamagedImageError:
            continue
    if not found:
        raise DatasetError(
            f"{folder}: none of its {len(paths)} files is a readable image; "
            "put JPEG, PNG, WEBP or BMP files there"
        )
    return found


def _noise(rng: np.random.Generator, size: int) -> Pixels:
    return rng.integers(0, 256, (size, size, 3), np.uint8)


def _gradients(rng: np.random.Generator, size: int) -> Pixels:
    x, y = _grid(size)
    angle, (first, second) = rng.uniform(0, 2 * np.pi), _two_colours(rng)
    along = np.cos(angle) * x + np.sin(angle) * y if rng.random() < 0.7 else np.hypot(x, y)
    share = (along - along.min()) / np.ptp(along)
    return _blend(share, first, second)


def _stripes(rng: np.random.Generator, size: int) -> Pixels:
    x, y = _grid(size)
    angle, waves = rng.uniform(0, np.pi), rng.uniform(3, 16)
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    wave = np.sin(np.pi * waves * u)
    if rng.random() < 0.5:
        wave = wave * np.sin(np.pi * waves * v)
    return _blend((wave > 0).astype(np.float64), *_two_colours(rng))


def _text(rng: np.random.Generator, size: int) -> Pixels:
    paper, ink = rng.integers(225, 256), rng.integers(0, 90)
    page = Image.new("RGB", (size, size), (int(paper),) * 3)
    draw, height = ImageDraw.Draw(page), size * rng.uniform(0.05, 0.12)
    font = ImageFont.load_default(float(height))
    for top in np.arange(size * 0.03, size, 1.35 * height):
        line = " ".join(rng.choice(WORDS, 12))
        draw.text((size * 0.04, float(top)), line, fill=(int(ink),) * 3, font=font)
    return np.array(page)


def _photographs(rng: np.random.Generator, size: int) -> Pixels:
    photos = _sample_photographs()
    photo = photos[rng.integers(len(photos))]
    side = int(rng.integers(min(photo.shape[:2]) // 4, min(photo.shape[:2]) + 1))
    top, left = (int(rng.integers(0, length - side + 1)) for length in photo.shape[:2])
    crop = photo[top : top + side, left : left + side]
    mirrored = crop[:, ::-1] if rng.random() < 0.5 else crop
    resized = Image.fromarray(np.ascontiguousarray(mirrored)).resize((size, size))
    return np.array(resized)


def _shapes(rng: np.random.Generator, size: int) -> Pixels:
    background = tuple(int(value) for value in rng.integers(0, 256, 3))
    page = Image.new("RGB", (size, size), background)
    draw = ImageDraw.Draw(page)
    for _ in range(int(rng.integers(3, 9))):
        fill = tuple(int(value) for value in rng.integers(0, 256, 3))
        corner, reach = rng.uniform(-0.1, 0.8, 2) * size, rng.uniform(0.1, 0.5, 2) * size
        box = [*corner.tolist(), *(corner + reach).tolist()]
        sort = rng.integers(3)
        if sort == 0:
            draw.ellipse(box, fill=fill)
        elif sort == 1:
            draw.rectangle(box, fill=fill)
        else:
            draw.polygon([tuple(point) for point in rng.uniform(0, size, (3, 2))], fill=fill)
    return np.array(page)


def _skin(rng: np.random.Generator, size: int) -> Pixels:
    """A lesion that lets all light through, photographed."""
    clear = np.ones((OVERSAMPLING * size, OVERSAMPLING * size, 3), np.float32)
    return photograph(clear, rng, skin=draw_skin(rng))


@cache
def _sample_photographs() -> list[Pixels]:
    from sklearn.datasets import load_sample_images  # takes a second, and few need it

    return [np.asarray(photo, np.uint8) for photo in load_sample_images().images]


def _grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.meshgrid(*2 * [np.linspace(-1, 1, size)])
    return x, y


def _two_colours(rng: np.random.Generator) -> NDArray[np.float64]:
    """Two colours that are not alike, (2, 3)."""
    first = rng.uniform(0, 255, 3)
    return np.stack([first, (first + rng.uniform(85, 170, 3)) % 255])


def _blend(
    share: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> Pixels:
    """(size, size, 3) of the second colour's share, (size, size), in [0, 1]."""
    mixed = first + share[..., None] * (second - first)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


_DRAW: dict[Kind, Callable[[np.random.Generator, int], Pixels]] = {
    "noise": _noise,
    "gradients": _gradients,
    "stripes": _stripes,
    "text": _text,
    "photographs": _photographs,
    "shapes": _shapes,
    "skin": _skin,
}
