"""The configuration in its bucket: read, replaced as a whole, watched, with its history.

The bucket `CDC_CONTROL` is a NATS key-value store (ADR-8). Its key `config` is one document, so
that a change of many resources is stored whole or not at all. Every write names the revision that
it replaces: of two writers that started from the same one, the second is refused. A revision is the
message's sequence in the bucket's stream.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from connectors.errors import ConfigError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.key_values import ensure_key_values, replace, replacing
from control.specs.differences import advanced, differences
from control.specs.document import EMPTY, Document, decode, encode, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec
    from control.specs.document import Difference, ResourceMeta, Tree

BUCKET, KEY = "CDC_CONTROL", "config"
# The most that a bucket keeps of a key (ADR-8).
HISTORY = 64
_STREAM = f"KV_{BUCKET}"
_SUBJECT = f"$KV.{BUCKET}.{KEY}"
# How long a change that no message told of may go unseen.
_LOOK_EVERY = 1.0
# The message that tells of a write may arrive before the write is stored.
_LOOK_SOON = 0.05


@dataclass(frozen=True, slots=True)
class Stored:
    """The configuration as it was at one revision.

    Attributes:
        revision: Grows with each write, not by one; 0: nothing was ever stored.
        document: What is stored.
    """

    revision: int
    document: Document

    @property
    def tree(self) -> Tree:
        """The sections of `waxtap.yaml`, without `nats`, references unresolved."""
        return self.document.tree

    @property
    def metadata(self) -> dict[str, ResourceMeta]:
        """What is known of each resource, by names such as `sources/shop`."""
        return self.document.metadata

    @property
    def changes(self) -> tuple[Difference, ...]:
        """What this revision changed."""
        return self.document.changes


def succeeding(base: Stored, tree: Mapping[str, object], author: str) -> Document:
    """The document behind `base` that holds this tree, its metadata brought up to date.

    Args:
        base: The latest revision.
        tree: The sections of `waxtap.yaml`, already checked.
        author: Who asked for it.
    """
    new, before = plain(tree), base.document
    changes = differences(base.tree, new)
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    metadata = advanced(base.metadata, changes, author, now)
    return Document(
        new, metadata, author, now, changes, before.requests, disposals=before.disposals
    )


class OvertakenError(Exception):
    """Somebody else has written since the revision that a write was made from."""


class SpecStore:
    """Reads and writes the configuration. Usable from any thread; every method blocks.

    Args:
        nats: Where the bucket is, and how it is laid out when it has to be made.
    """

    def __init__(self, nats: NatsSpec) -> None:
        self._nats = nats
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._seen = (0, b"", EMPTY)

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.release()
                self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def read(self) -> Stored:
        """The latest revision.

        Raises:
            RetryableError: NATS does not answer.
            ConfigError: We are not allowed to read it, or the bucket cannot be made.
            GapError: It cannot be read by this version.
        """
        connection = self._connected()
        with _refusals():
            return self._stored(api.last_message(connection, _STREAM, _SUBJECT))

    def at(self, revision: int) -> Stored | None:
        """An earlier revision; None where there is no such, or none any more. Raises as `read`."""
        connection = self._connected()
        with _refusals():
            stored = api.message(connection, _STREAM, revision)
        return self._stored(stored) if stored and stored.subject == _SUBJECT else None

    def revisions(self) -> list[Stored]:
        """Every revision that is kept, the latest first. Raises as `read`."""
        connection = self._connected()
        found: list[Stored] = []
        sequence = 1
        with _refusals():
            while message := api.next_message(connection, _STREAM, sequence, _SUBJECT):
                if message.data:
                    found.append(self._stored(message))
                sequence = message.seq + 1
        return found[::-1]

    def write(self, base: Stored, document: Document) -> Stored:
        """Replace the configuration, provided that `base` is still the latest revision.

        Args:
            base: What the new document was made from.
            document: Made by `succeeding`.

        Raises:
            OvertakenError: It is not; nothing was written.
            RetryableError: NATS does not answer: it may have been written or not.
            ConfigError: It is too large, or we are not allowed to write it.
        """
        data = encode(document)
        revision = self._publish(base.revision, data)
        with self._lock:
            self._seen = (revision, data, document)
        return Stored(revision, document)

    def changed(self, after: int, timeout: float) -> Stored | None:
        """Wait for a revision later than `after`; None when there was none in `timeout` seconds.

        Raises as `read`.
        """
        connection = self._connected()
        told = threading.Event()
        subscription = connection.subscribe(_SUBJECT, lambda _message: told.set())
        deadline = time.monotonic() + timeout
        soon = 0
        try:
            while True:
                if (found := self.read()).revision > after:
                    return found
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                soon -= 1
                if told.wait(min(left, _LOOK_SOON if soon > 0 else _LOOK_EVERY)):
                    told.clear()
                    soon = round(_LOOK_EVERY / _LOOK_SOON)
        finally:
            connection.unsubscribe(subscription)

    def _connected(self) -> Connection:
        """The connection, with the bucket there."""
        with self._lock:
            if self._connection is not None:
                return self._connection
            connection = connect(self._nats)
            replicas = self._nats.stream.replicas
            try:
                ensure_key_values(connection, BUCKET, replicas, history=HISTORY)
            except BaseException:
                connection.release()
                raise
            self._connection = connection
            return connection

    def _stored(self, message: api.StoredMessage | None) -> Stored:
        if message is None or not message.data:  # never written, or the mark of a deleted key
            return Stored(message.seq if message else 0, EMPTY)
        with self._lock:
            revision, data, known = self._seen
        if (message.seq, message.data) == (revision, data):
            return Stored(revision, known)
        found = decode(message.data, f"{BUCKET}.{KEY}")
        with self._lock:
            self._seen = (message.seq, message.data, found)
        return Stored(message.seq, found)

    def _publish(self, expected: int, data: bytes) -> int:
        connection = self._connected()
        if len(data) + len(replacing(expected, data)) + 1024 > connection.max_payload:
            raise ConfigError(
                "control.too_large",
                f"the configuration has {len(data)} bytes, compressed; the server takes messages "
                f"of {connection.max_payload}",
                where=f"{BUCKET}.{KEY}",
                cure="raise `max_payload` of the NATS server",
            )
        revision = replace(connection, BUCKET, KEY, data, expected)
        if revision is None:
            raise OvertakenError
        return revision


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except api.ApiError as error:
        raise ConfigError(
            "control.bucket_gone",
            f"the bucket of the configuration cannot be read: {error}",
            where=BUCKET,
            cure="restore the bucket from a backup, or start the service again to begin anew",
        ) from error
