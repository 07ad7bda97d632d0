"""Uploads that are wrong in some way, drawn by a seed; some turn out to be good."""

import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.tiny import tiny_image

Draw = random.Random
BOUNDARY = "consilium-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
PNG_SIGN = b"\x89PNG\r\n\x1a\n"
MODES = ("CMYK", "L", "LA", "P", "RGBA", "1", "I;16", "YCbCr", "I", "PA")
SUFFIXES = (b"<script>alert(1)</script>", b"PK\x05\x06" + bytes(18), b"%PDF-1.7\n", b"GIF89a")


class Upload(NamedTuple):
    """What is sent: the kind of wrong, the Content-Type, the body."""

    kind: str
    content_type: str
    body: bytes


def seeded(seed: int) -> Draw:
    """Draws that are the same each time."""
    return Draw(seed)


def draw_upload(draw: Draw) -> Upload:
    """The next upload."""
    kind = draw.choice(sorted(KINDS))
    body = KINDS[kind](draw)
    content_type = draw.choice(("image/png", "image/jpeg", "image/webp", ""))
    if kind.startswith("form_"):
        return Upload(kind, FORM, body)
    if kind == "wrong_type":
        return Upload(kind, draw.choice(("text/html", "image/tiff", "image", ";;=")), body)
    if draw.random() < 0.3:
        return Upload(kind, FORM, form([body]))
    return Upload(kind, content_type, body)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file's bytes."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def form(files: list[bytes], *, name: str = "image") -> bytes:
    """A multipart body."""
    head = f'Content-Disposition: form-data; name="{name}"; filename="a"\r\n\r\n'
    parts = [f"--{BOUNDARY}\r\n{head}".encode() + file + b"\r\n" for file in files]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def png(width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header may promise anything."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return PNG_SIGN + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _good(draw: Draw) -> bytes:
    return saved(tiny_image(draw.randrange(50)), draw.choice(("PNG", "JPEG", "WEBP")))


def _truncated(draw: Draw) -> bytes:
    file = _good(draw)
    return file[: draw.randrange(len(file))]


def _flipped(draw: Draw) -> bytes:
    file = bytearray(_good(draw))
    for _ in range(draw.randrange(1, 30)):
        file[draw.randrange(12, len(file))] = draw.randrange(256)
    return bytes(file)


def _bomb(draw: Draw) -> bytes:
    """A small file of many pixels, all of them there."""
    side = draw.choice((2_000, 4_000))
    return png(side, side, zlib.compress(bytes(side * (side // 8 + 1)), 9), depth=1, colour=0)


def _promise(draw: Draw) -> bytes:
    """A header of huge sides, and nearly nothing behind it."""
    side = draw.choice((2**31 - 1, 2**16, 50_000, 0))
    if draw.random() < 0.5:
        return png(side, side, zlib.compress(bytes(100)))
    file = bytearray(saved(tiny_image(), "JPEG"))
    at = file.index(b"\xff\xc0") + 5
    file[at : at + 4] = struct.pack(">HH", min(side, 65_535), min(side, 65_535))
    return bytes(file)


def _polyglot(draw: Draw) -> bytes:
    suffix = draw.choice(SUFFIXES) * draw.randrange(1, 50)
    return suffix + _good(draw) if draw.random() < 0.3 else _good(draw) + suffix


def _mode(draw: Draw) -> bytes:
    mode = draw.choice(MODES)
    image = tiny_image(draw.randrange(50))
    if mode in ("CMYK", "YCbCr"):
        return saved(image.convert(mode), "JPEG")
    if mode in ("I;16", "I"):
        grey = np.asarray(image.convert("L"), np.uint16) * 257
        return saved(Image.fromarray(grey), "PNG")
    if mode == "PA":
        return saved(image.convert("P"), "PNG", transparency=0)
    return saved(image.convert(mode), "PNG")


def _animated(draw: Draw) -> bytes:
    frames = [tiny_image(seed) for seed in range(draw.randrange(2, 6))]
    kind = draw.choice(("GIF", "WEBP", "PNG"))
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)


def _exif(draw: Draw) -> bytes:
    """A rotation that is none, or tags of garbage."""
    if draw.random() < 0.5:
        exif = Image.Exif()
        exif[0x0112] = draw.choice((0, 3, 6, 8, 9, 65_535))
        return saved(tiny_image(), draw.choice(("JPEG", "PNG", "WEBP")), exif=exif)
    return saved(tiny_image(), "JPEG", exif=b"Exif\x00\x00" + draw.randbytes(draw.randrange(200)))


def _other_format(draw: Draw) -> bytes:
    return saved(tiny_image(), draw.choice(("BMP", "TIFF", "GIF", "PPM", "ICO")))


def _random(draw: Draw) -> bytes:
    sign = draw.choice((b"", PNG_SIGN, b"\xff\xd8\xff", b"RIFF\x00\x00\x00\x00WEBP"))
    return sign + draw.randbytes(draw.randrange(2_000))


def _text_bomb(draw: Draw) -> bytes:
    """A compressed text chunk that unpacks to megabytes."""
    text = b"comment\x00\x00" + zlib.compress(bytes(8_000_000), 9)
    file = saved(tiny_image(draw.randrange(9)), "PNG")
    return file[:33] + _chunk(b"zTXt", text) + file[33:]


def _form_broken(draw: Draw) -> bytes:
    body = form([_good(draw)])
    cut = draw.randrange(len(body))
    return draw.choice((body[:cut], body.replace(b"\r\n", b"\n"), draw.randbytes(200), b""))


def _form_parts(draw: Draw) -> bytes:
    """The same part again and again, or one of another name."""
    name = draw.choice(("image", "image", "file", 'im"age', "é"))
    return form([_good(draw)] * draw.randrange(6), name=name)


def _form_headers(draw: Draw) -> bytes:
    lines = draw.choice(
        ("Content-Disposition: form-data", "X: " + "a" * 5_000, "Content-Disposition: ;;;=", ":")
    )
    return f"--{BOUNDARY}\r\n{lines}\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode()


KINDS: dict[str, Callable[[Draw], bytes]] = {
    "animated": _animated,
    "bomb": _bomb,
    "empty": lambda _: b"",
    "exif": _exif,
    "flipped": _flipped,
    "form_broken": _form_broken,
    "form_headers": _form_headers,
    "form_parts": _form_parts,
    "large": lambda draw: PNG_SIGN + bytes(draw.choice((19_000, 30_000, 80_000))),
    "mode": _mode,
    "other_format": _other_format,
    "polyglot": _polyglot,
    "promise": _promise,
    "random": _random,
    "text_bomb": _text_bomb,
    "truncated": _truncated,
    "wrong_type": _good,
}
