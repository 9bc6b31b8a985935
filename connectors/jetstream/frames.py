"""What is written to a stream: headers, checkpoints and the frames of an atomic batch.

Frames are those of the NATS client protocol (`HPUB`); the batch headers are those of ADR-50
"JetStream Batch Publishing" of the NATS architecture notes. An atomic batch is stored whole or not
at all. Our own headers:

    Cdc-Position     where the change stands in its source
    Cdc-Tx           the transaction's id; `;last` behind it on the last change of a transaction
    Cdc-Schema       hash of the table's shape, a key of the bucket CDC_SCHEMAS
    Cdc-Key          the row's key as JSON in ASCII
    Cdc-Unavailable  JSON list of the columns whose value the log did not carry
    Cdc-Json-Null    JSON list of the columns whose value is the JSON null
    Cdc-Op           the operation, where the payload is the row alone (`contracts.UnwrappedChange`)
    Cdc-Sink         the only sink that is given the message; without it, all are
    Cdc-Failed       why a pipeline could not work on the change (`contracts.Failure`)
    Cdc-Encoding     `zlib` when the payload is compressed
    Cdc-Object       `bucket/name` in the object store when the payload lies there
    Cdc-Checkpoint   on the last message of a batch: from where the source resumes
"""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from typing import TYPE_CHECKING

import msgspec

from connectors.contracts.changes import Change
from connectors.contracts.source import Checkpoint
from connectors.errors import GapError, PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Room for all headers but the key and the lists of columns.
HEADER_ROOM = 8192


class StoredCheckpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """The value of `Cdc-Checkpoint`.

    Attributes:
        writer: Who wrote it: a fresh id for each claim of the stream.
        position: As in `contracts.Checkpoint`.
        state: As in `contracts.Checkpoint`.
        base: On a fencing marker, the sequence of the last message before it that is not a marker
            itself; -1 on every other message.
        v: Version of this format.
    """

    writer: str
    position: str
    state: dict[str, str]
    base: int = -1
    v: int = 1

    @property
    def checkpoint(self) -> Checkpoint:
        """What the source resumes from."""
        return Checkpoint(self.position, self.state)

    @property
    def header(self) -> str:
        """The header's value, in ASCII."""
        fields: dict[str, object] = {
            "v": self.v,
            "writer": self.writer,
            "position": self.position,
            "state": self.state,
        }
        if self.base >= 0:
            fields["base"] = self.base
        return dumps(fields, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Body:
    """The payload of a message that is too large to be stored as it is, and headers to find it."""

    payload: bytes
    headers: str


def encode_batch(
    messages: Sequence[tuple[str, Change]],
    *,
    batch: str,
    reply: str,
    expected: int,
    checkpoint: str,
    bodies: Mapping[int, Body] | None = None,
    sink: str = "",
) -> bytes:
    """Encode changes as one atomic batch, or a single one as an ordinary message.

    Args:
        messages: Subject and change, 1 to 1000 of them.
        batch: The batch's id, up to 64 characters; `rename_batch` replaces it.
        reply: Where the server's answer to the whole batch goes.
        expected: The stream's last sequence that the batch must follow.
        checkpoint: Value of `Cdc-Checkpoint` on the last message.
        bodies: Replaces the payload of the messages with these indexes.
        sink: The only sink that is given the messages; empty: all are.

    Returns:
        The frames, ready to be sent.

    Raises:
        PermanentError: A header would hold characters that it cannot.
    """
    count = len(messages)
    parts: list[bytes] = []
    # Whatever is not made here and stands in a header.
    values = [checkpoint, sink]
    addressed = f"Cdc-Sink: {sink}\r\n" if sink else ""
    # A message by itself is atomic, and an ordinary one costs the server a fifth of a batch.
    alone = count == 1
    begin = "NATS/1.0" if alone else f"NATS/1.0\r\nNats-Batch-Id: {batch}\r\nNats-Batch-Sequence: "
    # Neighbours share their shape and their transaction.
    shape: object = None
    schema = current = mark = ""
    for number, (subject, change) in enumerate(messages, 1):
        _, table, position, key, transaction, last, payload, unavailable, json_nulls, failed = (
            change
        )
        if table is not shape:
            shape, schema = table, "" if table is None else f"Cdc-Schema: {table.hash}\r\n"
        if transaction is not current:
            values.append(transaction)
            current, mark = transaction, f"Cdc-Tx: {transaction}\r\n" if transaction else ""
        values += (position, key or "")
        ended = f"Cdc-Tx: {transaction};last\r\n" if last else mark
        named = "" if key is None else f"Cdc-Key: {key}\r\n"
        numbered = begin if alone else f"{begin}{number}"
        head = f"{numbered}\r\nCdc-Position: {position}\r\n{ended}{schema}{named}{addressed}"
        if unavailable or json_nulls or failed or change.__class__ is not Change:
            values.append(failed)
            head += _rare(change)
        if bodies and (number - 1) in bodies:
            body = bodies[number - 1]
            payload = body.payload
            head += body.headers
        if number == 1:
            head += f"Nats-Expected-Last-Sequence: {expected}\r\n"
        answer = ""
        if number == count:
            commit = "" if alone else "Nats-Batch-Commit: 1\r\n"
            head += f"{commit}Cdc-Checkpoint: {checkpoint}\r\n"
            answer = f" {reply}"
        size = len(head) + 2
        frame = f"HPUB {subject}{answer} {size} {size + len(payload)}\r\n{head}\r\n"
        parts += (frame.encode(), payload, b"\r\n")
    if _breaks_headers("".join(values)):
        raise _no_header(messages)
    return b"".join(parts)


def _rare(change: Change) -> str:
    """The headers that few changes have."""
    head = ""
    if change.unavailable:
        head += f"Cdc-Unavailable: {dumps(change.unavailable, separators=(',', ':'))}\r\n"
    if change.json_nulls:
        head += f"Cdc-Json-Null: {dumps(change.json_nulls, separators=(',', ':'))}\r\n"
    if change.__class__ is not Change:
        head += f"Cdc-Op: {change.op}\r\n"
    if change.failed:
        head += f"Cdc-Failed: {change.failed}\r\n"
    return head


def _breaks_headers(value: str) -> bool:
    """Whether a value cannot stand in a header: a line break would begin another one."""
    return not value.isascii() or "\n" in value or "\r" in value


def _values(change: Change) -> Iterable[str]:
    return change.position, change.transaction, change.key or "", change.failed


def _no_header(messages: Sequence[tuple[str, Change]]) -> PermanentError:
    """Names the first change that cannot be stored; where there is none, it is the checkpoint."""
    subject, change = next(
        (message for message in messages if any(map(_breaks_headers, _values(message[1])))),
        messages[-1],
    )
    return PermanentError(
        "jetstream.header",
        "position, transaction, key and checkpoint must be ASCII without line breaks",
        where=f"{subject} at {change.position!r}",
    )


def rename_batch(frames: bytes, old: str, new: str) -> bytes:
    """Give encoded frames another batch id (of the same length, random enough to be unique).

    The server may still hold an unfinished batch of the old id, to which a repetition would be
    added. A reply subject that ends in the id changes with it, so that late answers to the earlier
    attempt are told apart.
    """
    return frames.replace(old.encode("ascii"), new.encode("ascii"))


def encode_checkpoint(subject: str, *, reply: str, expected: int, checkpoint: str) -> bytes:
    """Encode a message that carries nothing but a checkpoint."""
    head = (
        f"NATS/1.0\r\nNats-Expected-Last-Sequence: {expected}\r\n"
        f"Cdc-Checkpoint: {checkpoint}\r\n\r\n"
    )
    return f"HPUB {subject} {reply} {len(head)} {len(head)}\r\n{head}\r\n".encode("ascii")


def read_headers(header: bytes) -> dict[str, str]:
    """Read a header block (`NATS/1.0` and lines of `Name: value`) into a dict."""
    fields = {}
    for line in header.decode("utf-8", "replace").split("\r\n")[1:]:
        name, found, value = line.partition(":")
        if found:
            fields[name.strip()] = value.strip()
    return fields


def read_checkpoint(header: bytes, where: str) -> StoredCheckpoint | None:
    """The checkpoint that a stored message carries; None when it carries none.

    Raises:
        GapError: It was written by a later version, or is damaged.
    """
    text = read_headers(header).get("Cdc-Checkpoint")
    if text is None:
        return None
    try:
        stored = msgspec.json.decode(text, type=StoredCheckpoint)
    except msgspec.MsgspecError as error:
        raise GapError(
            "jetstream.checkpoint_unreadable",
            f"the stream's last checkpoint cannot be read: {error}",
            where=where,
        ) from error
    if stored.v != 1:
        raise GapError(
            "jetstream.checkpoint_unreadable",
            f"the stream's last checkpoint has version {stored.v}, this program knows version 1",
            where=where,
            cure="run the version that wrote it, or a later one",
        )
    return stored


def cut(
    messages: Sequence[tuple[str, Change]], max_messages: int, max_bytes: int
) -> Iterable[tuple[int, int]]:
    """Cut messages into batches, never between two messages of the same position.

    Args:
        messages: In log order; those of one change stand together.
        max_messages: A hard limit.
        max_bytes: Exceeded only by the messages of a single position.

    Yields:
        Start and end of each batch.

    Raises:
        PermanentError: One change goes to more than `max_messages` subjects.
    """
    sizes = [len(change.envelope) + len(change.key or "") + 400 for _, change in messages]
    if 0 < len(messages) <= max_messages and sum(sizes) <= max_bytes:
        yield 0, len(messages)
        return
    start = boundary = size = boundary_size = 0
    previous = ""
    for index, (_, change) in enumerate(messages):
        if change.position != previous:
            previous = change.position
            boundary, boundary_size = index, size
        size += sizes[index]
        if index - start >= max_messages or (size > max_bytes and boundary > start):
            if boundary == start:
                raise PermanentError(
                    "jetstream.too_many_topics",
                    f"a change goes to more than {max_messages} subjects; they must be stored "
                    "together",
                    where=change.position,
                    cure="reduce the pipelines that take the same change",
                )
            yield start, boundary
            start = boundary
            size -= boundary_size
            boundary_size = 0
    if start < len(messages):
        yield start, len(messages)
