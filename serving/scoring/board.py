"""Where the rollout that an admin set is kept, so that every replica follows it.

Two sources say what is to be served: the Serve config (`user_config`) and an admin over HTTP. The
admin's word stands under the hash of the config it was said about. So a replica that starts or
restarts under that config follows the admin, and an edited config, being another, wins.
"""

import hashlib
import json
import threading
from typing import Any, Protocol

from pydantic import ValidationError

from search.errors import ServingError
from search.params import Config
from serving.config import Rollout, as_user_config

NAMESPACE = b"consilium"
TIMEOUT_S = 5  # of one question to Ray
LARGEST = 2**20  # characters of one entry


class Board(Protocol):
    """Text by key, the same for all replicas. Every call may raise ServingError."""

    def get(self, key: str) -> str | None: ...
    def put(self, key: str, value: str) -> None: ...
    def delete(self, key: str) -> None: ...


class MemoryBoard:
    """A board for the replicas of one process."""

    def __init__(self) -> None:
        self._entries: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        """The entry, or None."""
        return self._entries.get(key)

    def put(self, key: str, value: str) -> None:
        """Write or overwrite."""
        self._entries[key] = value

    def delete(self, key: str) -> None:
        """Take the entry away, if there is one."""
        self._entries.pop(key, None)


class RayBoard:
    """Ray's own key-value store: it outlives replicas and, on Redis, the head too.

    Needs a connected Ray. Blocks up to TIMEOUT_S where Ray's head does not answer.
    """

    def get(self, key: str) -> str | None:
        """The entry, or None."""
        value = self._ask("internal_kv_get", key.encode(), namespace=NAMESPACE)
        return None if value is None else bytes(value).decode(errors="replace")

    def put(self, key: str, value: str) -> None:
        """Write or overwrite."""
        self._ask("internal_kv_put", key.encode(), value.encode(), True, namespace=NAMESPACE)

    def delete(self, key: str) -> None:
        """Take the entry away, if there is one."""
        self._ask("internal_kv_del", key.encode(), False, namespace=NAMESPACE)

    def _ask(self, call: str, *args: Any, namespace: bytes) -> Any:
        # The client itself: the functions around it know no timeout.
        from ray.experimental.internal_kv import internal_kv_get_gcs_client

        client = internal_kv_get_gcs_client()  # type: ignore[no-untyped-call]
        if client is None:
            raise ServingError("no Ray is connected, so no rollout can be kept; start Ray first")
        try:
            return getattr(client, call)(*args, namespace=namespace, timeout=TIMEOUT_S)
        except Exception as error:  # Ray's errors share no base class
            raise ServingError(
                f"Ray's head does not answer about the rollout ({type(error).__name__}); try again"
            ) from error


class Kept(Config):
    """One entry of the board.

    Attributes:
        wanted: what an admin set; None where the config counts.
        previous: what was wanted before that.
    """

    wanted: Rollout | None = None
    previous: Rollout | None = None


class Desired:
    """Which rollout is to be served: the config's or, if he said something since, the admin's.

    All but `configuration` and `reason` may block on the board. Where the board does not answer,
    what it last said counts on: an outage of Ray's head changes nothing that is served.
    """

    def __init__(self, board: Board, application: str) -> None:
        """Know nothing yet.

        Args:
            application: Serve's name for it; two applications never share an entry.
        """
        self._board = board
        self._application = application
        self._lock = threading.RLock()
        self._configuration: Rollout | None = None
        self._kept = Kept()
        self.reason: str | None = None  # why the board's word was not taken; None where it was

    @property
    def configuration(self) -> Rollout:
        """The newest user_config.

        Raises:
            ServingError: there was none.
        """
        if self._configuration is None:
            raise ServingError("no rollout is configured; set user_config, or args.bundle")
        return self._configuration

    def configured(self, rollout: Rollout) -> None:
        """Take a new user_config, and forget what an admin said about the one before.

        Never raises because of the board: Serve kills a replica whose reconfigure fails.
        """
        with self._lock:
            old = self._configuration
            if old is None or old == rollout:
                self._configuration = rollout
                return
            kept = Kept(previous=self.wanted())
            self._configuration, self._kept = rollout, kept
            try:
                # Another replica may have been first, and an admin may have spoken since.
                if self._board.get(self._key(rollout)) is None:
                    self._write(kept)
                self._board.delete(self._key(old))
            except ServingError as error:
                self.reason = str(error)

    def wanted(self) -> Rollout:
        """What is to be served.

        Raises:
            ServingError: nothing is configured.
        """
        with self._lock:
            return self._read().wanted or self.configuration

    def previous(self) -> Rollout | None:
        """What was wanted before: what a rollback, on any replica, goes to."""
        with self._lock:
            return self._read().previous

    def override(self, rollout: Rollout) -> None:
        """Set the rollout for every replica, until the config is edited.

        Raises:
            ServingError: nothing is configured, or the board does not take it.
        """
        with self._lock:
            kept = self._read()
            now = kept.wanted or self.configuration
            previous = kept.previous if now == rollout else now
            self._write(Kept(wanted=rollout, previous=previous))

    def _read(self) -> Kept:
        try:
            text = self._board.get(self._key(self.configuration))
        except ServingError as error:
            if self._configuration is None:
                raise
            self.reason = str(error)
            return self._kept
        if text is None:  # nobody spoke, or the config was edited and this replica hears it late
            self.reason = None
            return self._kept
        self._kept, self.reason = _parse(text)
        return self._kept

    def _write(self, kept: Kept) -> None:
        self._board.put(self._key(self.configuration), kept.model_dump_json(exclude_defaults=True))
        self._kept, self.reason = kept, None

    def _key(self, rollout: Rollout) -> str:
        text = json.dumps(as_user_config(rollout), sort_keys=True)
        return f"rollout/{self._application}/{hashlib.sha256(text.encode()).hexdigest()}"


def _parse(text: str | None) -> tuple[Kept, str | None]:
    """An entry, and why it was not taken where it says nothing a replica can follow."""
    if text is None:
        return Kept(), None
    if len(text) > LARGEST:
        return Kept(), f"the rollout kept by Ray has {len(text)} characters; the config counts"
    try:
        return Kept.model_validate_json(text), None
    except (ValidationError, RuntimeError) as error:  # the latter: a home folder of nobody
        why = str(error).partition("\n")[0]
        return Kept(), f"the rollout kept by Ray cannot be read ({why}); the config counts"
