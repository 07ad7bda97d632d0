"""One dermoscopy-like picture: a lesion whose malignancy shows in its ABCD signs only.

A lesion is a map of how much light it lets through; a photograph lays it over skin and adds what
cameras add. Every amount that a mean, a spread or a file size could betray (area, pigment, hue,
contrast, hairs, light) is drawn without looking at the class.

Sources: Stolz et al., "ABCD rule of dermatoscopy", Eur. J. Dermatol. 4 (1994), for the signs;
Beer-Lambert absorption for the colours.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.uint8]
Map = NDArray[np.float32]

OVERSAMPLING = 2  # drawn at this many times the size, then averaged: smooth hairs and borders
MELANIN = np.array([0.55, 0.95, 1.20], np.float32)  # optical density per unit, R G B
BLOOD = np.array([0.12, 0.75, 0.60], np.float32)
HUES = np.array(  # density of each colour of the rule next to plain brown, R G B
    [
        [0.60, 0.55, 0.40],  # black
        [-0.20, 0.15, 0.05],  # red
        [0.40, 0.05, -0.40],  # blue-grey veil
        [-0.45, -0.60, -0.70],  # white, regression
        [-0.30, -0.35, -0.15],  # tan
    ],
    np.float32,
)
GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


class Signs(NamedTuple):
    """How strongly each criterion speaks for malignancy, 0 to 1."""

    asymmetry: float
    border: float
    colours: float
    structure: float


def draw_skin(rng: np.random.Generator) -> Map:
    """Reflectance of a patient's skin, (3,), from pale to brown, each more or less flushed."""
    melanin, blood = 0.04 + rng.gamma(1.6, 0.1), rng.uniform(0.12, 0.5)
    return np.exp(-min(melanin, 0.6) * MELANIN - blood * BLOOD).astype(np.float32)


def paint(rng: np.random.Generator, signs: Signs, *, size: int) -> Map:
    """Paint a lesion alone: the share of light it lets through, (2 size, 2 size, 3), 0 to 1."""
    side = size * OVERSAMPLING
    x, y = _grid(side)
    stretch, radius = rng.uniform(1, 1.2), rng.uniform(0.3, 0.55)
    x, y = x / (radius * stretch), y / (radius / stretch)
    cover = _cover(rng, signs, x, y)
    field = _pattern(rng, signs, x, y) + _texture(rng, signs, x, y)
    density = field[..., None] * MELANIN + _colours(rng, signs, x, y)
    return np.asarray(np.exp(-cover[..., None] * _level(rng, density, cover)), np.float32)


def photograph(lesion: Map, rng: np.random.Generator, *, skin: Map) -> Image:
    """Photograph a lesion on skin of reflectance `skin`; each call is another view of it."""
    side = len(lesion)
    middle, angle, zoom = (side / 2, side / 2), rng.uniform(0, 360), rng.uniform(0.92, 1.08)
    matrix = np.asarray(cv2.getRotationMatrix2D(middle, angle, zoom), np.float64)
    matrix[:, 2] += rng.uniform(-0.07, 0.07, 2) * side
    seen = cv2.warpAffine(lesion, matrix, (side, side), borderValue=(1.0, 1.0, 1.0))
    image = (skin * seen * _skin_texture(rng, side)[..., None]).astype(np.float32)
    for artefact in (_add_hairs, _add_bubbles, _add_ruler):
        artefact(rng, image)
    return _expose(rng, image * _light(rng, side))


def _cover(rng: np.random.Generator, signs: Signs, x: Map, y: Map) -> Map:
    """How much of the lesion is there, 0 outside to 1 inside; its area ignores the signs."""
    angles = np.linspace(-np.pi, np.pi, 720, endpoint=False)
    outline = np.ones_like(angles)
    for order in range(2, 13):
        strength = 0.13 * signs.asymmetry if order < 5 else 0.11 * signs.border
        amplitude = (0.015 + strength) * rng.standard_normal() * 2 / order
        outline += amplitude * np.cos(order * angles + rng.uniform(0, 2 * np.pi))
    streaks = np.clip(np.cos(rng.integers(22, 34) * angles), 0, 1) * _sector(rng, angles)
    outline += 0.2 * np.clip(signs.structure - 0.4, 0, 1) * streaks
    outline = np.clip(outline, 0.35, 1.7)
    outline /= np.sqrt(np.mean(outline**2))
    fading = 1.1 * signs.border * (1 - 2 * _sector(rng, angles))  # abrupt on one side
    softness = rng.uniform(0.05, 0.14) * np.exp(fading)
    index = ((np.arctan2(y, x) / np.pi + 1) * 360).astype(np.int32) % 720
    ragged = (0.05 + 0.08 * signs.border) * _fractal(rng, len(x), 9)
    distance = outline[index] - np.hypot(x, y) + ragged
    return _sigmoid(2 * distance / softness[index])


def _pattern(rng: np.random.Generator, signs: Signs, x: Map, y: Map) -> Map:
    """Coarse pigment: rings around the centre where symmetric, off-centre clouds where not."""
    rings = np.cos(np.hypot(x, y) * rng.uniform(2.2, 3.6)) * rng.choice([-1, 1])
    clouds = _fractal(rng, len(x), 5)
    mixed = (1 - signs.asymmetry) * 1.4 * rings + signs.asymmetry * clouds
    return np.asarray(rng.uniform(0.4, 0.9) * mixed, np.float32)


def _texture(rng: np.random.Generator, signs: Signs, x: Map, y: Map) -> Map:
    """Network and globules: even where benign, warped, patchy and uneven where not."""
    side, wild = len(x), signs.structure
    u, v = (axis + 0.22 * wild * _noise(rng, side, 9) for axis in (x, y))
    turn, pitch = rng.uniform(0, np.pi), rng.uniform(22, 36)
    turns = turn + np.arange(3) * np.pi / 3  # three waves make a honeycomb
    waves = sum(np.cos(pitch * (np.cos(turn) * u + np.sin(turn) * v)) for turn in turns)
    thickness = 0.2 + 0.9 * wild * _noise(rng, side, 8)
    network = _sigmoid(2.5 * (thickness - waves)) - 0.5
    patches = 1 + wild * 0.9 * _noise(rng, side, 5)
    share = rng.uniform(0.1, 0.9)  # of the network; globules have the rest
    mixed = share * 1.6 * network * np.clip(patches, 0, 2)
    mixed = mixed + (1 - share) * 2.2 * _globules(rng, wild, x, y) + 0.25 * _fractal(rng, side, 24)
    return np.asarray(rng.uniform(0.5, 1.0) * mixed, np.float32)


def _globules(rng: np.random.Generator, wild: float, x: Map, y: Map) -> Map:
    """Round clods, 0 to 1: a sunflower's even seeds, scattered into one side as they go wild."""
    side, number = len(x), int(rng.integers(40, 90))
    order = np.arange(number)
    angle, distance = order * GOLDEN_ANGLE, 0.95 * np.sqrt((order + 0.5) / number)
    place = np.stack([distance * np.cos(angle), distance * np.sin(angle)], 1)
    place += 0.35 * wild * rng.standard_normal((number, 2))
    place += 0.45 * max(wild - 0.5, 0) * rng.standard_normal(2)
    scale = np.array([side / (x[0, -1] - x[0, 0]), side / (y[-1, 0] - y[0, 0])])
    sizes = 0.6 * scale.mean() / np.sqrt(number) * np.exp(0.45 * wild * rng.standard_normal(number))
    mask = np.zeros((side, side), np.uint8)
    for centre, reach in zip(place * scale + side / 2, sizes * rng.uniform(0.5, 0.8), strict=True):
        _disc(mask, centre, float(reach))
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), side / 200) / 255, np.float32)


def _colours(rng: np.random.Generator, signs: Signs, x: Map, y: Map) -> Map:
    """Density beyond brown, (side, side, 3): a ring of one hue, or scattered blotches of many."""
    side = len(x)
    ring = np.exp(-(((np.hypot(x, y) - rng.uniform(0, 1)) / 0.35) ** 2))
    density = (1 - signs.colours) * ring[..., None] * HUES[rng.integers(len(HUES))]
    for hue in HUES[rng.permutation(len(HUES))[: 1 + round(4 * signs.colours)]]:
        blotch = _sigmoid(4 * (_fractal(rng, side, 5) - 0.7))
        density = density + 1.5 * signs.colours * blotch[..., None] * hue
    return np.asarray(density, np.float32)


def _level(rng: np.random.Generator, density: Map, cover: Map) -> Map:
    """Shift and scale a density so that its means and its contrast ignore the signs."""
    inside = density[cover > 0.5]
    target = rng.uniform(0.5, 1.35) * MELANIN + rng.uniform(0.0, 0.35) * BLOOD
    contrast = rng.uniform(0.2, 0.36) / max(float(inside.mean(axis=1).std()), 1e-6)
    levelled = target + contrast * (density - inside.mean(axis=0))
    return np.asarray(np.clip(levelled, 0.02, 3), np.float32)


def _sector(rng: np.random.Generator, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """A weight, 0 to 1, that is high on one side."""
    return np.asarray(0.5 + 0.5 * np.cos(angles - rng.uniform(0, 2 * np.pi)))


def _grid(side: int) -> tuple[Map, Map]:
    x, y = np.meshgrid(*2 * [np.linspace(-1, 1, side, dtype=np.float32)])
    return x, y


def _sigmoid(values: NDArray[np.floating]) -> Map:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))), np.float32)


def _noise(rng: np.random.Generator, side: int, cells: int) -> Map:
    """Smooth noise of about unit spread with `cells` bumps across."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    fine = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(1.4 * fine, np.float32)


def _fractal(rng: np.random.Generator, side: int, cells: int) -> Map:
    """Noise with ever finer, ever weaker detail."""
    octaves = [0.55**octave * _noise(rng, side, cells * 2**octave) for octave in range(3)]
    return np.asarray(sum(octaves) / 1.18, np.float32)


def _skin_texture(rng: np.random.Generator, side: int) -> Map:
    """Mottling and fine creases around 1, (side, side)."""
    creases = -np.abs(_noise(rng, side, 22)) - np.abs(_noise(rng, side, 34))
    texture = 0.02 * creases + 0.018 * _fractal(rng, side, 6) + 0.008 * _noise(rng, side, side // 3)
    return np.asarray(np.exp(rng.uniform(0.4, 1.2) * texture), np.float32)


def _disc(mask: Image, centre: NDArray[np.float64], radius: float) -> None:
    x, y = (round(16 * float(value)) for value in centre)  # 4 bits of sub-pixel position
    cv2.circle(mask, (x, y), max(round(16 * radius), 1), 255, -1, cv2.LINE_AA, 4)


def _blend(image: Map, mask: NDArray[Any], colour: ArrayLike, opacity: float) -> None:
    image += ((np.asarray(colour) - image) * (opacity / 255 * mask)[..., None]).astype(np.float32)


def _add_hairs(rng: np.random.Generator, image: Map) -> None:
    side = len(image)
    colour = np.array([0.16, 0.10, 0.08]) * rng.uniform(0.5, 3.2)
    mask, lean = np.zeros((side, side), np.uint8), rng.uniform(0, np.pi)
    for _ in range(int(rng.random() < 0.55) * int(rng.geometric(0.2))):
        angle, bend = lean + 0.5 * rng.standard_normal(), 0.25 * rng.standard_normal()
        along = np.linspace(-1, 1, 24) * rng.uniform(0.3, 0.9)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        curve = rng.uniform(0, 1, 2) + np.stack([along, bend * along**2], axis=1) @ turn
        points, width = np.round(curve * side * 16), round(side / 128 * rng.uniform(0.4, 1.3))
        cv2.polylines(mask, [points.astype(np.int32)], False, 255, max(width, 1), cv2.LINE_AA, 4)
    _blend(image, mask, colour, 0.85)


def _add_bubbles(rng: np.random.Generator, image: Map) -> None:
    side = len(image)
    for _ in range(int(rng.random() < 0.25) * int(rng.integers(1, 6))):
        disc = np.zeros((side, side), np.uint8)
        _disc(disc, rng.uniform(0, side, 2), side * rng.uniform(0.008, 0.04))
        rim = cv2.morphologyEx(disc, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        _blend(image, cv2.GaussianBlur(rim, (0, 0), side / 200), 1, rng.uniform(0.3, 0.8))


def _add_ruler(rng: np.random.Generator, image: Map) -> None:
    side = len(image)
    step, start = side * rng.uniform(0.035, 0.06), side * rng.uniform(0.02, 0.3)
    marks = np.zeros((side, side), np.uint8)
    for tick in range(int(rng.random() < 0.15) * int(rng.integers(6, 15))):
        at, length = round(start + tick * step), round(side * (0.06 if tick % 5 == 0 else 0.035))
        cv2.line(marks, (at, 0), (at, length), 255, max(side // 150, 1), cv2.LINE_AA)
    _blend(image, np.rot90(marks, int(rng.integers(4))), 0.05, 0.8)


def _light(rng: np.random.Generator, side: int) -> Map:
    """Illumination, (side, side, 3): strength, tint, a gradient, now and then a dark round edge."""
    x, y = _grid(side)
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.12)
    light = 1 + slope * (np.cos(angle) * x + np.sin(angle) * y)
    light -= rng.uniform(0, 0.12) * (x**2 + y**2)
    if rng.random() < 0.2:
        light *= _sigmoid((rng.uniform(1.0, 1.25) - np.hypot(x, y)) / rng.uniform(0.01, 0.05))
    light = light[..., None] * rng.uniform(0.9, 1.1) * rng.uniform(0.95, 1.05, 3)
    return np.asarray(light, np.float32)


def _expose(rng: np.random.Generator, image: Map) -> Image:
    """The camera: blur, down to the final size, noise, 8 bits."""
    size = len(image) // OVERSAMPLING
    blurred = cv2.GaussianBlur(image, (0, 0), OVERSAMPLING * rng.uniform(0.25, 0.7))
    small = cv2.resize(blurred, (size, size), interpolation=cv2.INTER_AREA)
    grain = rng.uniform(0.004, 0.014) * rng.standard_normal(small.shape, np.float32)
    return np.clip(np.round(255 * (small + grain)), 0, 255).astype(np.uint8)
