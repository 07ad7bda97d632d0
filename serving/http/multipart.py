"""The image parts of a multipart body, taken out while it streams in.

Starlette's form parser writes every part to a temporary file and tells no limits apart; this
one keeps the parts named `image` only, in memory, and stops at the first byte too many.
"""

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.config import ServingConfig
from serving.problems import ProblemError

FIELD = b"image"
MAX_OTHERS = 100  # parts besides the images; each takes 50 us of the event loop


class ImageParts:
    """Feed it the body's chunks, then close it."""

    def __init__(self, boundary: bytes, config: ServingConfig) -> None:
        self._config = config
        self._images: list[bytearray] = []
        self._name, self._value = bytearray(), bytearray()
        self._wanted = self._complete = False
        self._parts = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._header_name,
                    "on_header_value": self._header_value,
                    "on_header_end": self._header_end,
                    "on_part_data": self._data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed() from error

    def write(self, chunk: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            ProblemError: it is no multipart body, or a limit is passed.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed() from error

    def close(self) -> list[bytes]:
        """The image files in the order sent.

        Raises:
            ProblemError: the body ended too early.
        """
        if not self._complete:
            raise _malformed()
        return [bytes(image) for image in self._images]

    def _begin(self) -> None:
        self._wanted = False
        self._parts += 1
        limit = self._config.max_images + MAX_OTHERS
        if self._parts > limit:
            raise ProblemError(
                413, "too_large", f"the body has more than {limit} parts; send the images alone"
            )

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            if options.get(b"name") == FIELD:
                self._begin_image()
        self._name.clear()
        self._value.clear()

    def _begin_image(self) -> None:
        limit = self._config.max_images
        if len(self._images) == limit:
            raise ProblemError(
                413, "too_many_images", f"more than {limit} images; send them in several requests"
            )
        self._images.append(bytearray())
        self._wanted = True

    def _data(self, data: bytes, start: int, end: int) -> None:
        if not self._wanted:
            return
        image, limit = self._images[-1], self._config.max_image_bytes
        if len(image) + end - start > limit:
            raise too_large(f"image {len(self._images)}", limit)
        image += data[start:end]

    def _end(self) -> None:
        self._complete = True


def too_large(what: str, limit: int) -> ProblemError:
    """The 413 for a body or an image above its limit in bytes."""
    return ProblemError(413, "too_large", f"{what} has more than {limit} bytes; send a smaller one")


def _malformed() -> ProblemError:
    return ProblemError(
        400,
        "malformed_body",
        "not a complete multipart/form-data body; let an HTTP library build it",
    )
