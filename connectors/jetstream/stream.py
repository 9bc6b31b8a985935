"""A source's stream: made, recognised, and claimed by one writer at a time.

A writer claims the stream by a marker on `CDC.<source>.checkpoint` that repeats the last
checkpoint. Every batch names the sequence that it must follow, so the marker makes all batches of
older writers fail. The last message of a stream always carries a checkpoint: it is the truth about
where its source stands.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, TypedDict
from uuid import uuid4

import msgspec
import structlog

from connectors.contracts.source import Checkpoint
from connectors.errors import ConfigError, GapError, RetryableError
from connectors.jetstream import api
from connectors.jetstream.checks import check_server
from connectors.jetstream.connection import connect
from connectors.jetstream.examine import settled
from connectors.jetstream.frames import StoredCheckpoint, read_checkpoint
from connectors.jetstream.layout import ensure_stream
from connectors.jetstream.refusals import Kind, classify

if TYPE_CHECKING:
    from collections.abc import Collection

    from connectors.jetstream.connection import Connection
    from connectors.jetstream.spec import NatsSpec

log = structlog.get_logger()

_PREFIX = "CDC_"
_SOURCE = re.compile(r"[A-Za-z0-9_-]+")
# How long a claim may compete with a writer that is still at work.
_PATIENCE = 30.0


class PublisherState(TypedDict):
    """What a flow remembers of a stream that it writes.

    Keys:
        stream: The stream's name.
        created: When it was created: another time means another stream.
        sequence: The last sequence known to be stored.
    """

    stream: str
    created: str
    sequence: int


class StreamClaim(msgspec.Struct, frozen=True):
    """The right to write a stream, from the moment it was taken until the next one.

    Attributes:
        stream: The stream's name.
        source: The source whose stream it is.
        created: When the stream was created (RFC 3339).
        writer: A fresh id; every checkpoint of this claim carries it.
        sequence: Of the marker; the first batch must follow it.
        base: Of the last message before it that is no marker; 0 when there is none.
        checkpoint_every: A checkpoint must be written at least this often, in seconds, so that the
            last one never expires; 0: messages do not expire.
        checkpoint: From where the source resumes; None: from its beginning.
    """

    stream: str
    source: str
    created: str
    writer: str
    sequence: int
    base: int
    checkpoint_every: float
    checkpoint: Checkpoint | None


def stream_name(source: str) -> str:
    """The name of a source's stream. Raises ConfigError for a name that no stream can have."""
    if not _SOURCE.fullmatch(source):
        raise ConfigError(
            "jetstream.source_name",
            f"{source!r}: letters, digits, `_` and `-` only",
            where=f"sources.{source}",
        )
    return f"{_PREFIX}{source}"


def source_name(stream: str) -> str:
    """The source whose stream this is."""
    return stream.removeprefix(_PREFIX)


def checkpoint_subject(source: str) -> str:
    """Where messages lie that carry a checkpoint only."""
    return f"CDC.{source}.checkpoint"


def open_stream(
    nats: NatsSpec, source: str, accept: Collection[str] = ()
) -> tuple[StreamClaim, Checkpoint | None]:
    """Claim a source's stream, made if it is missing: no older writer stores anything any more.

    Args:
        nats: Where it is, and how a new one is laid out.
        source: The source's name.
        accept: Losses that the owner accepts, by the tokens that the errors named.

    Returns:
        The claim, and the checkpoint that the stream holds (None: the source begins anew).

    Raises:
        ConfigError: Server or stream are not set up for it.
        GapError: The stream has lost its checkpoint.
        RetryableError: NATS does not answer, the stream is full, or another writer is too busy.
    """
    stream = stream_name(source)
    with connect(nats) as connection:
        check_server(connection)
        writer = uuid4().hex
        deadline = time.monotonic() + _PATIENCE
        while True:
            made = ensure_stream(connection, nats.stream, stream, f"CDC.{source}.>")
            found, stored = settled(connection, stream)
            info = found or made
            last, base = _last_checkpoint(connection, info, stored, accept)
            checkpoint = last.checkpoint if last else Checkpoint("", {})
            marker = StoredCheckpoint(writer, checkpoint.position, checkpoint.state, base)
            sequence = _mark(connection, source, marker, info.state.last_seq)
            if sequence:
                break
            if time.monotonic() > deadline:
                raise RetryableError(
                    "jetstream.contended",
                    "another writer stores faster than the stream can be claimed",
                    where=stream,
                    cure="stop the other flow of this source",
                )
    known = checkpoint if checkpoint.position or checkpoint.state else None
    every = nats.stream.max_age.total_seconds() / 2
    return StreamClaim(stream, source, info.created, writer, sequence, base, every, known), known


def verify_not_behind(
    nats: NatsSpec, remembered: PublisherState, accept: Collection[str] = ()
) -> None:
    """Check a stream against what a flow remembers of it, before or after it was claimed anew.

    A stream of another creation time starts anew: that is logged, and right.

    Args:
        nats: Where the stream is.
        remembered: From `Publisher.state` of an earlier run.
        accept: Losses that the owner accepts, by the tokens that the errors named.

    Raises:
        GapError: The stream holds less than is remembered: it was truncated.
        RetryableError: NATS does not answer.
    """
    stream = remembered["stream"]
    with connect(nats) as connection:
        info = api.stream_info(connection, stream)
        if info is None or info.created != remembered["created"]:
            log.warning(
                "the stream was deleted since the last run, it starts anew",
                stream=stream,
                created=info.created if info else "",
                remembered=remembered["created"],
            )
            return
        last = _stored_checkpoint(connection, stream, info.state.last_seq)
    end = last.base if last and last.base >= 0 else info.state.last_seq
    if end < remembered["sequence"]:
        refuse_truncated(stream, end, remembered["sequence"], accept)


def refuse_truncated(stream: str, last: int, known: int, accept: Collection[str]) -> int:
    """Raise GapError because a stream ends at `last` and not at `known`, unless accepted.

    Returns:
        Where the stream was cut off, as accepted: it may have grown since, so that what follows
        is new.
    """
    token = f"truncated:{stream}@{last}<{known}"
    form = re.compile(rf"truncated:{re.escape(stream)}@(\d+)<{known}")
    for given in accept:
        found = form.fullmatch(given)
        if found and int(found[1]) <= last:
            log.warning(
                "going on with a truncated stream, as accepted", stream=stream, accepted=given
            )
            return int(found[1])
    raise GapError(
        "jetstream.truncated",
        f"the stream ends at sequence {last}, but {known} was stored in it before",
        where=stream,
        cure=f"restore the stream, or accept the loss with `accept: [{token!r}]`",
    )


def _last_checkpoint(
    connection: Connection,
    info: api.StreamInfo,
    stored: api.StoredMessage | None,
    accept: Collection[str],
) -> tuple[StoredCheckpoint | None, int]:
    """The stream's last checkpoint, and the sequence of the last message that is no marker.

    Args:
        connection: Where the stream is.
        info: The stream.
        stored: Its last message; None when that is gone.
        accept: Losses that the owner accepts.
    """
    stream, end = str(info.config["name"]), info.state.last_seq
    if end == 0:
        return None, 0
    if stored is None:
        if _unchanged(connection, stream, end):
            _refuse_purged(stream, end, accept)
        return None, end
    last = read_checkpoint(stored.hdrs, stream)
    if last is not None:
        return last, last.base if last.base >= 0 else end
    token = f"foreign:{stream}@{end}"
    if token not in accept:
        raise GapError(
            "jetstream.foreign_writer",
            f"the last message ({stored.subject}, sequence {end}) was not written by Waxtap: it "
            "carries no checkpoint",
            where=stream,
            cure="take the right to publish to CDC.> from the other writer, then go on behind its "
            f"messages with `accept: [{token!r}]`",
        )
    log.warning("going on behind foreign messages, as accepted", stream=stream, accepted=token)
    for sequence in range(end - 1, info.state.first_seq - 1, -1):
        last = _stored_checkpoint(connection, stream, sequence)
        if last is not None:
            return last, end
    return None, end


def _stored_checkpoint(
    connection: Connection, stream: str, sequence: int
) -> StoredCheckpoint | None:
    stored = api.message(connection, stream, sequence) if sequence else None
    return read_checkpoint(stored.hdrs, stream) if stored else None


def _unchanged(connection: Connection, stream: str, end: int) -> bool:
    info = api.stream_info(connection, stream)
    return info is not None and info.state.last_seq == end


def _refuse_purged(stream: str, end: int, accept: Collection[str]) -> None:
    token = f"purged:{stream}@{end}"
    if token in accept:
        log.warning(
            "the source starts from its beginning, as accepted", stream=stream, accepted=token
        )
        return
    raise GapError(
        "jetstream.purged",
        f"the message with the last sequence ({end}) is gone, and with it the state from which the "
        "source resumes: the stream was purged, or nothing was written for longer than max_age",
        where=stream,
        cure=f"start the source from its beginning with `accept: [{token!r}]`",
    )


def _mark(connection: Connection, source: str, marker: StoredCheckpoint, expected: int) -> int:
    """Publish a fencing marker; return its sequence, or 0 when something came in between."""
    headers = f"Nats-Expected-Last-Sequence: {expected}\r\nCdc-Checkpoint: {marker.header}\r\n"
    subject = checkpoint_subject(source)
    ack = api.decode_ack(connection.request(subject, headers=headers).payload)
    if ack.error is None:
        return ack.seq
    kind = classify(ack.error)
    if kind is Kind.OVERTAKEN:
        return 0
    raise RetryableError(
        "jetstream.full" if kind is Kind.NO_ROOM else "jetstream.not_stored",
        f"the stream cannot be claimed: {ack.error.description} ({ack.error.err_code})",
        where=subject,
        cure="raise `nats.stream.max_bytes`, or purge what every sink has delivered",
    )
