"""From a file's bytes to the pixels that a backbone takes: the one path of training and serving."""

import struct
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import Field

from search.errors import DamagedImageError
from search.params import Config

if TYPE_CHECKING:
    import torch

MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
ORIENTATION = 0x0112  # EXIF tag
# EXIF 2.32, tag Orientation: how to bring each stored position upright; 1 is upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MINKOWSKI = 6  # Finlayson & Trezzi: the best norm over real scenes
# What Pillow's decoders raise on damaged bytes; the two bomb classes come from its own limits.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    MemoryError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class Preprocessing(Config):
    """What is done to an image: the first three decide its pixels, the rest their scale."""

    size: int = Field(ge=8, le=4096, description="pixels of the square")
    grayscale: bool = False
    colour_constancy: bool = False
    mean: tuple[float, float, float] = Field(description="of RGB in 0..1")
    std: tuple[float, float, float] = Field(description="of RGB in 0..1, above 0")


def decode(
    source: Path | bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
    name: str = "image",
) -> Image.Image:
    """Decode the first frame of a JPEG, PNG, WEBP or BMP, told by its content.

    Args:
        source: a file, or a file's bytes.
        max_pixels: limit of width times height, checked before anything is decoded.
        at_least: lets a JPEG be decoded at 1/2, 1/4 or 1/8 while both sides stay this long.
            The pixels depend on it: pass the same value wherever results must agree.
        name: what errors call a file's bytes.

    Returns:
        RGB, upright, without metadata. Transparent pixels lie over white, as on a page; of 16
        bits the upper 8 stay; embedded colour profiles are not applied.

    Raises:
        DamagedImageError: naming the file, the problem and the next step.
    """
    name = str(source) if isinstance(source, Path) else name
    try:
        file = source if isinstance(source, Path) else BytesIO(source)
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image, max_pixels, name)
            orientation = _orientation(image)
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            image.load()
            rgb = _to_rgb(image)
    except DAMAGE as error:
        raise DamagedImageError(_problem(name, error)) from error
    rgb.info.clear()
    return rgb.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else rgb


def prepare(image: Image.Image, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Resize and recolour an RGB image.

    The image is squashed, not cropped: a lesion's border carries the diagnosis and often reaches
    the image's edge, while 4:3 squashed to 1:1 stays within what augmentation does anyway.

    Returns:
        (size, size, 3), by antialiased bilinear resizing. Grayscale is the ITU-R BT.601 luminance,
        after colour constancy, in three equal channels.
    """
    side = preprocessing.size
    if image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    if preprocessing.colour_constancy:
        image = Image.fromarray(shades_of_gray(np.asarray(image)))
    if preprocessing.grayscale:
        image = image.convert("L").convert("RGB")
    return np.array(image, dtype=np.uint8)


def shades_of_gray(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Divide out the light's colour, estimated per channel as the Minkowski norm with p = 6.

    Args:
        pixels: (height, width, 3).

    Returns:
        The same shape; a gray light changes nothing, and neither does an all-black image.

    Source: Finlayson & Trezzi, "Shades of gray and colour constancy", CIC 2004; gains as in
    Barata et al., "Improving dermoscopy image classification using color constancy", JBHI 2015.
    """
    levels = np.arange(256, dtype=np.float64)
    counts = [np.bincount(pixels[..., c].ravel(), minlength=256) for c in range(3)]
    light = (np.stack(counts) @ levels**MINKOWSKI / pixels[..., 0].size) ** (1 / MINKOWSKI)
    if not light.any():
        return pixels.copy()
    light /= np.linalg.norm(light)
    # A channel that is zero everywhere stays so, whatever its gain.
    gains = 1 / (np.sqrt(3) * np.where(light > 0, light, 1))
    table = np.clip(np.rint(levels[:, None] * gains), 0, 255).astype(np.uint8)
    balanced: NDArray[np.uint8] = np.stack([table[pixels[..., c], c] for c in range(3)], axis=-1)
    return balanced


def normalise(images: "torch.Tensor", preprocessing: Preprocessing) -> "torch.Tensor":
    """Scale pixels to zero mean and unit deviation.

    Args:
        images: uint8, (n, size, size, 3).

    Returns:
        float32, (n, 3, size, size), in channels-last memory.
    """
    scaled = images.permute(0, 3, 1, 2).float() / 255
    mean = scaled.new_tensor(preprocessing.mean).view(1, 3, 1, 1)
    std = scaled.new_tensor(preprocessing.std).view(1, 3, 1, 1)
    return (scaled - mean) / std


def _check_size(image: Image.Image, max_pixels: int, name: str) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise DamagedImageError(
            f"{name}: {width}x{height} is more than {max_pixels} pixels; send a smaller one"
        )


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # EXIF comes in every state of damage, and the pixels need none of it
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        upper = np.clip(np.asarray(image, dtype=np.int64), 0, 65535) >> 8
        return Image.fromarray(upper.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")


def _problem(name: str, error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name}: no such file; check the path"
    if isinstance(error, UnidentifiedImageError):
        return f"{name}: not a {', '.join(FORMATS)} image; convert it to one of these"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"{name}: more pixels than can be decoded safely; send a smaller one"
    reason = " ".join(str(error).split()) or type(error).__name__
    return f"{name}: damaged ({reason[:200]}); replace the file or take it out"
