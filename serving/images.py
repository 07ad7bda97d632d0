"""An upload's bytes to pixels."""

from io import BytesIO

from PIL import Image, UnidentifiedImageError

from search.data.transforms import DAMAGE, decode
from search.errors import DamagedImageError
from serving.problems import ProblemError

FORMATS = ("JPEG", "PNG", "WEBP")
START_OF_SCAN = b"\xff\xda"  # of a JPEG; its compressed data cannot hold it
MOST_SCANS = 40  # encoders write about ten


def decode_image(file: bytes, index: int, *, max_pixels: int) -> Image.Image:
    """Decode as the bundle's own evaluation does (see search.data.transforms.decode).

    Raises:
        ProblemError: 413 for too many pixels, 422 for a damaged file.
    """
    # Each scan of a progressive JPEG costs as much as the whole image, and may have 75 bytes.
    if file.startswith(b"\xff\xd8") and file.count(START_OF_SCAN) > MOST_SCANS:
        raise ProblemError(
            422,
            "damaged_image",
            f"image {index}: more than {MOST_SCANS} scans; save it as a baseline JPEG",
        )
    if _pixels(file) > max_pixels:
        raise ProblemError(
            413,
            "too_many_pixels",
            f"image {index} has more than {max_pixels} pixels; send a smaller one",
        )
    try:
        return decode(file, max_pixels=max_pixels)
    except DamagedImageError as error:
        reason = str(error).removeprefix("image: ")
        if isinstance(error.__cause__, UnidentifiedImageError):
            reason = "damaged (its header cannot be read); send it again from the original"
        raise ProblemError(422, "damaged_image", f"image {index}: {reason}") from error


def _pixels(file: bytes) -> float:
    """Width times height by the header, 0 where it cannot be read: decoding will say why."""
    try:
        with Image.open(BytesIO(file), formats=FORMATS) as image:
            return image.width * image.height
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return float("inf")
    except DAMAGE:
        return 0
