"""Image files out of a request's body: bounded while they stream, told by content, decoded."""

from collections.abc import AsyncIterator
from io import BytesIO

from fastapi import Request
from PIL import Image, UnidentifiedImageError
from python_multipart.multipart import parse_options_header

from search.data.transforms import DAMAGE, decode
from search.errors import DamagedImageError
from serving.config import ServingConfig
from serving.multipart import ImageParts, too_large
from serving.problems import ProblemError

FORMATS = ("JPEG", "PNG", "WEBP")
TYPES = tuple(f"image/{name.lower()}" for name in FORMATS)
# RFC 9110, 8.3: a body without a type may be taken for octets, and told by its content.
RAW = ("", "application/octet-stream", *TYPES)


async def read_images(request: Request, config: ServingConfig) -> list[bytes]:
    """The image files of a body, raw or multipart, in the order sent; at least one.

    Raises:
        ProblemError: 400, 413, 415 or 422; nothing is read past a limit.
    """
    raw_kind, options = parse_options_header(request.headers.get("content-type"))
    kind = raw_kind.decode("latin-1")
    if kind == "multipart/form-data":
        parts = ImageParts(options.get(b"boundary", b""), config)
        async for chunk in _counted(request, config.max_body_bytes):
            parts.write(chunk)
        files = parts.close()
    elif kind in RAW:
        limit = min(config.max_image_bytes, config.max_body_bytes)
        files = [b"".join([chunk async for chunk in _counted(request, limit)])]
    else:
        raise ProblemError(
            415,
            "unsupported_type",
            f"a body of type {kind[:100]!r}; send multipart/form-data or {', '.join(TYPES)}",
        )
    if not any(files):
        raise ProblemError(422, "no_image", "no image in the body; name each part image")
    for index, file in enumerate(files, 1):
        check_type(file, index)
    return files


def check_type(file: bytes, index: int) -> None:
    """Refuse what does not begin as a JPEG, PNG or WEBP file does.

    Raises:
        ProblemError: 415, naming the image by its index from 1.
    """
    webp = file[:4] == b"RIFF" and file[8:12] == b"WEBP"
    if not webp and not file.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        raise ProblemError(
            415, "unsupported_type", f"image {index} is no JPEG, PNG or WEBP file; convert it"
        )


def decode_image(file: bytes, index: int, *, max_pixels: int) -> Image.Image:
    """Decode as the bundle's own evaluation does (see search.data.transforms.decode).

    Raises:
        ProblemError: 413 for too many pixels, 422 for a damaged file.
    """
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


async def _counted(request: Request, limit: int) -> AsyncIterator[bytes]:
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > limit:
            raise too_large("the body", limit)
        yield chunk
