"""The access log: one JSON line a request; no header, no query, nothing of a body."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

LOGGER = "consilium.access"
encode = json.JSONEncoder(separators=(",", ":")).encode
FLUSH_S = 0.5  # that a line waits for others


@dataclass(slots=True, kw_only=True)
class Access:
    """One request and its answer; may be filled while it goes through."""

    request_id: str
    method: str
    route: str  # the template that matched, such as /v1/model; never the raw path
    client: str | None = None  # address
    key: str | None = None  # id
    status: int = 0
    bytes_in: int = 0  # of the body
    seconds: float = 0.0
    bundle: str | None = None  # digest


class AccessLog:
    """Writes one line for each request, each text in it bounded.

    Args:
        stream: receives the lines; the logger "consilium.access" if absent. Where nobody has
            given that logger a handler, its lines go bare to stderr, which Ray collects.
        now: the time, with its zone.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stream = stream
        self._logger = _logger() if stream is None else None
        self._waiting: list[str] = []
        self._now = now

    def write(self, access: Access) -> None:
        """Write one line. A log that cannot be written keeps no answer back."""
        line = encode(
            {
                "time": self._now().isoformat(timespec="milliseconds"),
                "request_id": access.request_id[:64],
                "key": access.key and access.key[:32],
                "client": access.client and access.client[:64],
                "method": access.method[:16],
                "route": access.route[:128],
                "status": access.status,
                "bytes_in": access.bytes_in,
                "seconds": round(access.seconds, 6),
                "bundle": access.bundle and access.bundle[:12],
            }
        )
        if self._stream is not None:
            with suppress(OSError, ValueError):  # ValueError: the stream is closed
                self._stream.write(line + "\n")
            return
        self._waiting.append(line)
        if len(self._waiting) == 1:
            self._flush_later()

    def flush(self) -> None:
        """Hand the lines that wait to the logger, all in one record."""
        lines, self._waiting = self._waiting, []
        if lines and self._logger is not None:
            self._logger.info("%s", "\n".join(lines))

    def _flush_later(self) -> None:
        """A record of `logging` costs as much as all else that the front does for a request."""
        try:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        except RuntimeError:  # on no event loop
            self.flush()


def _logger() -> logging.Logger:
    logger = logging.getLogger(LOGGER)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # or a handler of the root would write each line again
    return logger
