"""Image files out of a request's body: bounded while they stream, told by content."""

from collections.abc import AsyncIterator

from python_multipart.multipart import parse_options_header

from serving.config import ServingConfig
from serving.http.multipart import ImageParts, too_large
from serving.images import FORMATS
from serving.problems import ProblemError

TYPES = tuple(f"image/{name.lower()}" for name in FORMATS)
# RFC 9110, 8.3: a body without a type may be taken for octets, and told by its content.
RAW = ("", "application/octet-stream", *TYPES)


async def read_images(
    content_type: str, chunks: AsyncIterator[bytes], config: ServingConfig
) -> list[bytes]:
    """The image files of a body, raw or multipart, in the order sent; at least one.

    Raises:
        ProblemError: 413, 415 or 422, 400 for a body that is cut off; nothing is kept past a limit.
    """
    raw_kind, options = parse_options_header(content_type)
    kind = raw_kind.decode("latin-1")
    if kind == "multipart/form-data":
        parts = ImageParts(options.get(b"boundary", b""), config)
        async for chunk in chunks:
            parts.write(chunk)
        files = parts.close()
    elif kind in RAW:
        files = [await _whole(chunks, config.max_image_bytes)]
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


async def _whole(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    parts, count = [], 0
    async for chunk in chunks:
        parts.append(chunk)
        count += len(chunk)
        if count > limit:
            raise too_large("the image", limit)
    return b"".join(parts)
