"""Backfills in the bucket `CDC_BACKFILLS`: what is asked for, and what has become of it.

Of each there is a key `<source>.<id>.request`, which whoever asks writes, and one
`<source>.<id>.status`, which the source's flow writes. Keys are made when first written to.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec
import structlog

from connectors.contracts.backfills import INITIAL, BackfillRequest, BackfillStatus
from connectors.errors import ConfigError, WaxtapError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.key_values import ensure_key_values, replace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec

    _T = TypeVar("_T")

log = structlog.get_logger()

BUCKET = "CDC_BACKFILLS"
_STREAM = f"KV_{BUCKET}"
_REQUEST, _STATUS = "request", "status"
# Between two looks for what is asked for, and between two that have failed, in seconds.
_LOOK_EVERY, _LOOK_AGAIN = 1.0, 5.0
# What is told at the end is waited for that long.
_LAST_WAIT = 2.0


class Stored(NamedTuple):
    """A backfill as it is stored.

    Attributes:
        source: Whose.
        id: Its name; `initial` has no request.
        request: What is asked for.
        status: What has become of it; None: nothing yet.
        revision: Of the request; 0: there is none.
    """

    source: str
    id: str
    request: BackfillRequest | None
    status: BackfillStatus | None
    revision: int


def write_request(
    connection: Connection, source: str, request: BackfillRequest, revision: int
) -> int | None:
    """Store what is asked for in place of a revision, 0: of none.

    Returns:
        The new revision; None: there is a later one, and nothing was stored.

    Raises:
        RetryableError: NATS does not answer: it may have been stored or not.
        ConfigError: The server refuses the bucket.
    """
    ensure_key_values(connection, BUCKET, connection.spec.stream.replicas)
    key = f"{source}.{request.id}.{_REQUEST}"
    return replace(connection, BUCKET, key, msgspec.json.encode(request), revision)


def read_one(connection: Connection, source: str, backfill: str) -> Stored | None:
    """One backfill; None: there is none.

    Raises:
        RetryableError: NATS does not answer.
        ConfigError: Another version has written there.
    """
    found = _read(connection, [f"{source}.{backfill}"])
    return found[0] if found else None


def read_all(connection: Connection, source: str = "") -> list[Stored]:
    """All backfills, those of one source if it is named, in the order of source and time.

    Raises: as `read_one`.
    """
    found = _read(connection, _look(connection, source).names)
    return sorted(found, key=_order)


def prune(connection: Connection, source: str, keep: int) -> None:
    """Delete what is known of a source's backfills that are over, but for the last `keep`.

    Raises: as `read_one`.
    """
    over = [each for each in read_all(connection, source) if each.request and _ended(each)]
    subjects = [f"$KV.{BUCKET}.{source}.{each.id}.>" for each in over[: max(len(over) - keep, 0)]]
    if subjects:
        api.purge(connection, _STREAM, subjects)


def forget(connection: Connection, source: str) -> None:
    """Delete all backfills of a source.

    Raises:
        RetryableError: NATS does not answer.
    """
    if api.stream_info(connection, _STREAM) is not None:
        api.purge(connection, _STREAM, [f"$KV.{BUCKET}.{source}.>"])


def _ended(stored: Stored) -> bool:
    return stored.status is not None and stored.status.stage.final


def _order(stored: Stored) -> tuple[str, int, str]:
    return stored.source, stored.request.created if stored.request else 0, stored.id


class _State(msgspec.Struct, frozen=True):
    last_seq: int = 0
    subjects: dict[str, int] | None = None


class _Info(msgspec.Struct, frozen=True):
    """What `STREAM.INFO` tells, asked with `subjects_filter`."""

    created: str
    state: _State

    @property
    def names(self) -> list[str]:
        """`<source>.<id>` of each backfill."""
        prefix = f"$KV.{BUCKET}."
        found = sorted(self.state.subjects or ())
        return list(dict.fromkeys(each.removeprefix(prefix).rpartition(".")[0] for each in found))


def _look(connection: Connection, source: str) -> _Info:
    """Which backfills there are, and where the bucket ends."""
    body = {"subjects_filter": f"$KV.{BUCKET}.{source or '*'}.*.*"}
    try:
        return api.call(connection, f"STREAM.INFO.{_STREAM}", body, _Info)
    except api.ApiError as error:
        if error.err_code == api.STREAM_NOT_FOUND:
            return _Info("", _State())
        raise


def _read(connection: Connection, names: Sequence[str]) -> list[Stored]:
    subjects = [f"$KV.{BUCKET}.{name}.{part}" for name in names for part in (_REQUEST, _STATUS)]
    try:
        messages = api.messages(connection, _STREAM, subjects)
    except api.ApiError as error:
        if error.err_code == api.STREAM_NOT_FOUND:
            return []
        raise
    found = []
    for index, name in enumerate(names):
        asked, told = messages[2 * index], messages[2 * index + 1]
        if not (asked and asked.data) and not (told and told.data):
            continue
        source, _, backfill = name.partition(".")
        request = _decoded(asked, BackfillRequest) if asked else None
        status = _decoded(told, BackfillStatus) if told else None
        found.append(Stored(source, backfill, request, status, asked.seq if asked else 0))
    return found


def _decoded(message: api.StoredMessage, kind: type[_T]) -> _T | None:
    if not message.data:
        return None
    try:
        return msgspec.json.decode(message.data, type=kind)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            "jetstream.backfill_unreadable",
            f"what is stored of a backfill cannot be read: {error}",
            where=message.subject,
            cure="run the version that wrote it, or a later one",
        ) from error


class JetStreamBackfills:
    """Implements `contracts.Backfills` for the flow of one source.

    A thread looks every second, beginning with the first call of `open`.

    Args:
        nats: Where the bucket is.
        source: The source's name.
    """

    def __init__(self, nats: NatsSpec, source: str) -> None:
        self._nats, self._source = nats, source
        self._lock = threading.Lock()
        self._stored: dict[str, Stored] = {}
        # What is to be stored, the latest of each.
        self._told: dict[str, BackfillStatus] = {}
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._complained = self._ready = False
        # The bucket when it was read last: when it was made, and its last sequence.
        self._seen = ("", 0)

    def open(self) -> list[BackfillRequest]:
        """Those that nothing final was told about, in their order, as of about a second ago."""
        self._begin()
        with self._lock:
            found = [
                each.request
                for each in self._stored.values()
                if each.request is not None and not _ended(each)
            ]
        return sorted(found, key=lambda request: (request.created, request.id))

    def known(self, backfill: str) -> BackfillStatus | None:
        """What was told of one before, also by an earlier process."""
        with self._lock:
            if backfill in self._told:
                return self._told[backfill]
            found = self._stored.get(backfill)
        return found.status if found else None

    def tell(self, backfill: str, status: BackfillStatus) -> None:
        """What has become of one; is stored soon."""
        self._begin()
        with self._lock:
            self._told[backfill] = status
        if status.stage.final:
            self._wake.set()

    def close(self) -> None:
        """Let go of the connection, once what was told is stored or that takes too long."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_LAST_WAIT)
            self._thread = None

    def _begin(self) -> None:
        if self._thread is None:
            # One that is being closed keeps its own.
            self._closing = threading.Event()
            self._thread = threading.Thread(
                target=self._run,
                args=(self._closing,),
                name=f"waxtap-{self._source}-backfills",
                daemon=True,
            )
            self._thread.start()

    def _run(self, closed: threading.Event) -> None:
        """Look and tell, until closed."""
        while True:
            closing = closed.is_set()
            try:
                with connect(self._nats) as connection:
                    self._exchange(connection)
                pause, self._complained = _LOOK_EVERY, False
            except (WaxtapError, api.ApiError) as error:
                pause = _LOOK_AGAIN
                if not self._complained:
                    self._complained = True
                    log.warning(
                        "backfills cannot be looked after now, trying again",
                        source=self._source,
                        reason=str(error),
                    )
            if closing:
                return
            self._wake.wait(pause)
            self._wake.clear()

    def _exchange(self, connection: Connection) -> None:
        with self._lock:
            told = dict(self._told)
        for backfill, status in told.items():
            self._store(connection, backfill, status)
            with self._lock:
                if self._told.get(backfill) is status:
                    del self._told[backfill]
        info = _look(connection, self._source)
        if (info.created, info.state.last_seq) == self._seen:
            return
        # Of what has ended nothing more is told, however much of that there is.
        kept = {
            each.id: each
            for name in info.names
            if (each := self._stored.get(name.partition(".")[2])) and _ended(each)
        }
        wanted = [name for name in info.names if name.partition(".")[2] not in kept]
        found = kept | {each.id: each for each in _read(connection, wanted)}
        with self._lock:
            self._stored = found
        self._seen = (info.created, info.state.last_seq)

    def _store(self, connection: Connection, backfill: str, status: BackfillStatus) -> None:
        """Store a status, unless a final one is there: a flow that was replaced may tell late."""
        if not self._ready:
            ensure_key_values(connection, BUCKET, connection.spec.stream.replicas)
            self._ready = True
        key = f"{self._source}.{backfill}.{_STATUS}"
        while True:
            message = api.last_message(connection, _STREAM, f"$KV.{BUCKET}.{key}")
            before = _decoded(message, BackfillStatus) if message else None
            # A source that begins anew takes its first snapshot once more.
            anew = backfill == INITIAL and not status.stage.final
            if before is not None and before.stage.final and not anew:
                return
            revision = message.seq if message else 0
            data = msgspec.json.encode(status)
            if replace(connection, BUCKET, key, data, revision) is not None:
                return
