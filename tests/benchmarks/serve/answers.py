"""What a server sends back on one connection, read no further than a load generator must."""

HEAD_END = b"\r\n\r\n"
LARGEST_HEAD = 64 * 1024


class AnswerError(Exception):
    """What came is no HTTP/1.1 answer."""


class Answer:
    """One HTTP/1.1 answer as its bytes arrive: by length, in chunks, or until the end.

    Attributes:
        status: 0 until the head is there.
        closes: the server says that this connection ends with the answer.
    """

    def __init__(self) -> None:
        self.status = 0
        self.closes = False
        self._bytes = bytearray()
        self._body = 0  # where it begins
        self._length: int | None = None
        self._chunked = False
        self._next = 0  # where the next chunk's size stands

    def feed(self, data: bytes) -> bool:
        """Take bytes in; True once the answer is whole.

        Raises:
            AnswerError: it is none.
        """
        self._bytes += data
        while not self.status:
            if not self._read_head():
                return False
        if self._chunked:
            return self._read_chunks()
        return self._length is not None and len(self._bytes) >= self._body + self._length

    def ended(self) -> bool:
        """Whether the connection's end is the answer's: neither length nor chunks were told."""
        return self.status > 0 and self._length is None and not self._chunked

    def _read_head(self) -> bool:
        end = self._bytes.find(HEAD_END)
        if end < 0:
            if len(self._bytes) > LARGEST_HEAD:
                raise AnswerError("a head without an end")
            return False
        head = bytes(self._bytes[:end]).lower()
        if not head.startswith(b"http/1.") or not head[9:12].isdigit():
            raise AnswerError(f"no HTTP: {head[:40]!r}")
        status, self._body = int(head[9:12]), end + len(HEAD_END)
        if 100 <= status < 200:  # "continue": the answer itself follows
            del self._bytes[: self._body]
            return True
        self.status = status
        self.closes = _header(head, b"connection") == b"close" or head.startswith(b"http/1.0")
        self._chunked = b"chunked" in _header(head, b"transfer-encoding")
        length = _header(head, b"content-length")
        if length and not length.isdigit():
            raise AnswerError(f"a length of {length[:40]!r}")
        empty = status in (204, 304)
        self._length = 0 if empty else int(length) if length else None
        self._next = self._body
        return True

    def _read_chunks(self) -> bool:
        while (line := self._bytes.find(b"\r\n", self._next)) >= 0:
            digits = bytes(self._bytes[self._next : line]).split(b";")[0].strip()
            try:
                size = int(digits, 16)
            except ValueError as error:
                raise AnswerError(f"a chunk of {digits[:40]!r}") from error
            if size == 0:
                return self._bytes.endswith(b"\r\n\r\n")
            after = line + 2 + size + 2
            if len(self._bytes) < after:
                return False
            self._next = after
        return False


def _header(head: bytes, name: bytes) -> bytes:
    """A header's value in a head of small letters; empty where there is none."""
    start = head.find(b"\r\n" + name + b":")
    return b"" if start < 0 else head[start + len(name) + 3 :].split(b"\r\n", 1)[0].strip()
