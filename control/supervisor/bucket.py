"""The bucket `CDC_FLOWS`: what control services tell one another about flows.

A NATS key-value store (ADR-8) that keeps the last value of each key. It is mirrored in memory: a
refresh reads only what was written since the last one, and every write names the revision that it
replaces.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

import msgspec
import structlog

from connectors.errors import ConfigError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.connection import Wanted, connect
from connectors.jetstream.direct import DirectGets
from connectors.jetstream.key_values import ensure_key_values, replacing, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from connectors.jetstream.spec import NatsSpec

T = TypeVar("T", bound=msgspec.Struct)

log = structlog.get_logger()

BUCKET = "CDC_FLOWS"
_STREAM = f"KV_{BUCKET}"
_SUBJECT = f"$KV.{BUCKET}."
_AT_ONCE = 500


class Entry(NamedTuple):
    """What is stored under a key: its revision and its value; an empty value: it was deleted."""

    revision: int
    value: bytes


class Write(NamedTuple):
    """A value for a key, and the revision that it replaces; 0: there is none."""

    key: str
    value: bytes
    revision: int


ABSENT = Entry(0, b"")


class FlowBucket:
    """The bucket and its mirror. Usable from any thread; `refresh` from one at a time.

    Args:
        nats: Where it is, and how it is laid out when it has to be made.
        told: Called, in the thread of the connection, when somebody has written.

    Raises:
        RetryableError: NATS does not answer.
        ConfigError: We are not allowed to use it, or it cannot be made.
    """

    def __init__(self, nats: NatsSpec, told: Callable[[], object]) -> None:
        self._connection = connect(nats)
        self._replicas = nats.stream.replicas
        try:
            self._make()
            self._gets = DirectGets(self._connection)
            self._subscription = self._connection.subscribe(f"{_SUBJECT}>", lambda _message: told())
        except BaseException:
            self._connection.release()
            raise
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._seen = 0
        self._created = ""

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        self._connection.unsubscribe(self._subscription)
        self._gets.close()
        self._connection.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def get(self, key: str) -> Entry:
        """What was stored under a key when the mirror was last brought up to date."""
        with self._lock:
            return self._entries.get(key, ABSENT)

    def latest(self, keys: Sequence[str]) -> None:
        """Bring these up to date in the mirror, as the stream's leader has them.

        Raises:
            RetryableError: NATS does not answer.
        """
        subjects = [f"{_SUBJECT}{key}" for key in keys]
        try:
            found = api.messages(self._connection, _STREAM, subjects)
        except api.ApiError as error:
            raise RetryableError("control.bucket_gone", str(error), where=BUCKET) from error
        with self._lock:
            for key, message in zip(keys, found, strict=True):
                if message is not None:
                    self._note(key, Entry(message.seq, message.data))

    def entries(self) -> Mapping[str, Entry]:
        """Everything in the mirror."""
        with self._lock:
            return dict(self._entries)

    def refresh(self) -> None:
        """Read what was written since the last time.

        A bucket that was deleted is made again, and one that is another one by now is read from its
        beginning: nothing holds any more of what the earlier one said.

        Raises:
            RetryableError: NATS does not answer.
            ConfigError: The bucket cannot be made again.
        """
        info = api.stream_info(self._connection, _STREAM)
        if info is None:
            log.error("the bucket of the flows is gone, it is made again", bucket=BUCKET)
            self._make()
            info = api.stream_info(self._connection, _STREAM)
        created = info.created if info is not None else ""
        if created != self._created:
            with self._lock:
                self._entries.clear()
                self._seen, self._created = 0, created
        while True:
            body = {"seq": self._seen + 1, "next_by_subj": f"{_SUBJECT}>", "batch": _AT_ONCE}
            found = self._gets.get(_STREAM, body)
            # All at once: what one write has taken another one may give back.
            with self._lock:
                for message in found:
                    entry = Entry(message.sequence, message.payload)
                    self._note(message.subject.removeprefix(_SUBJECT), entry)
                    self._seen = max(self._seen, message.sequence)
            if len(found) < _AT_ONCE:
                return

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Replace values, each if its revision is still the latest one; an empty one deletes.

        Returns:
            Which of them were stored. The mirror has those at once.

        Raises:
            RetryableError: NATS does not answer: each may have been stored or not.
        """
        wanted = [
            Wanted(
                f"{_SUBJECT}{write.key}",
                write.value,
                replacing(write.revision, write.value),
            )
            for write in writes
        ]
        done = []
        for first in range(0, len(wanted), _AT_ONCE):
            for reply, write in zip(
                self._connection.requests(wanted[first : first + _AT_ONCE]),
                writes[first:],
                strict=False,
            ):
                revision = stored(reply.payload, f"{BUCKET}.{write.key}")
                if revision is not None:
                    with self._lock:
                        self._note(write.key, Entry(revision, write.value))
                done.append(revision is not None)
        return done

    def put(self, key: str, value: msgspec.Struct, revision: int) -> bool:
        """Write one value. Returns and raises as `write`."""
        return self.write([Write(key, msgspec.json.encode(value), revision)])[0]

    def _make(self) -> None:
        ensure_key_values(self._connection, BUCKET, self._replicas)

    def _note(self, key: str, entry: Entry) -> None:
        if entry.revision >= self._entries.get(key, ABSENT).revision:
            self._entries[key] = entry


def read(key: str, entry: Entry, kind: type[T]) -> T | None:
    """The value of an entry; None if there is none.

    Raises:
        ConfigError: It was written by a version that is not ours.
    """
    if not entry.value:
        return None
    try:
        return msgspec.json.decode(entry.value, type=kind)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            "control.unreadable",
            f"what is stored there cannot be read: {error}",
            where=f"{BUCKET}.{key}",
            cure=f"use the version that wrote it, or delete it: nats kv del {BUCKET} {key}",
        ) from error
