"""Sample changes for `waxtap try`: from a file, or from a stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from connectors.contracts.changes import Change, Column, Delivered, TableSchema
from connectors.errors import ConfigError
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.oversize import resolve
from connectors.jetstream.schemas import SchemaStore
from connectors.jetstream.stored import parse_headers
from connectors.jetstream.stream import stream_name
from connectors.wrapping import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from connectors.jetstream.spec import NatsSpec

_KINDS = {bool: "boolean", int: "number", float: "number", dict: "json", list: "json"}
_TYPES = {"boolean": "boolean", "number": "numeric", "json": "jsonb", "string": "text"}


class Sample(msgspec.Struct, forbid_unknown_fields=True):
    """A line of a file of samples that tells more than the envelope.

    Attributes:
        envelope: As it is stored.
        schema: The table's shape, as it is stored; guessed from the envelope without it.
        key: The row's key.
        unavailable: Columns whose value the log did not carry.
    """

    envelope: msgspec.Raw
    schema: TableSchema | None = None
    key: dict[str, msgspec.Raw] | None = None
    unavailable: tuple[str, ...] = ()


class _Origin(msgspec.Struct):
    """What of an envelope tells of the table."""

    op: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    source: dict[str, Any] = {}


def from_lines(lines: Iterable[bytes], source: str, where: str) -> Iterator[Delivered]:
    """The changes of a file, one a line; blank lines are skipped.

    Args:
        lines: Each an envelope, or a `Sample`.
        source: The name of the source whose changes they stand for.
        where: The file's name.

    Raises:
        ConfigError: A line is neither.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if "envelope" in msgspec.json.decode(line, type=dict[str, msgspec.Raw]):
                sample = msgspec.json.decode(line, type=Sample)
            else:
                sample = Sample(msgspec.Raw(line.strip()))
            yield _change(sample, source, number)
        except msgspec.MsgspecError as error:
            raise ConfigError(
                "try.bad_sample",
                f"line {number} is no change: {error}",
                where=where,
                cure="one envelope a line, as docs/messages.md shows it",
            ) from None


def _change(sample: Sample, source: str, number: int) -> Delivered:
    envelope = bytes(sample.envelope)
    origin = msgspec.json.decode(envelope, type=_Origin)
    table = sample.schema
    if table is None and origin.op != "m":
        table = _guessed(origin, source)
    key = None if sample.key is None else _ascii(msgspec.json.encode(sample.key))
    if key is None and table is not None and table.key:
        row = origin.before if origin.after is None else origin.after
        rows = msgspec.json.decode(envelope, type=dict[str, msgspec.Raw])
        part = rows.get("before" if origin.after is None else "after", msgspec.Raw(b"null"))
        if row is not None and all(name in row for name in table.key):
            values = msgspec.json.decode(part, type=dict[str, msgspec.Raw])
            key = _ascii(msgspec.json.encode({name: values[name] for name in table.key}))
    subject = f"CDC.{source}.sample.0"
    return Delivered(
        number, subject, f"{number:020}", key, table, "1", True, envelope, sample.unavailable
    )


def _guessed(origin: _Origin, source: str) -> TableSchema:
    """A shape that fits the rows; the key is what an old row holds alone, or the column `id`."""
    row = (origin.before or {}) | (origin.after or {})
    columns = []
    for name, value in row.items():
        kind = _KINDS.get(type(value), "string")
        columns.append(Column(name, _TYPES[kind], kind))
    key: tuple[str, ...] = ("id",) if "id" in row else ()
    if origin.before and origin.after and len(origin.before) < len(origin.after):
        key = tuple(origin.before)
    schema = str(origin.source.get("schema") or origin.source.get("db") or "public")
    name = str(origin.source.get("table") or "table")
    return TableSchema(source, schema, name, tuple(columns), key)


def _ascii(key: bytes) -> str:
    return json.dumps(json.loads(key), separators=(",", ":"))


def captured(change: Delivered) -> Change:
    """A sample as a pipeline is given it."""
    op = msgspec.json.decode(change.envelope, type=_Origin).op
    return Change(
        op,
        change.table,
        change.position,
        change.key,
        change.transaction,
        change.last,
        change.envelope,
        change.unavailable,
        change.json_nulls,
    )


def from_stream(nats: NatsSpec, source: str, count: int) -> list[Delivered]:
    """The last `count` changes of a source's stream, oldest first.

    Raises:
        ConfigError: There is no such stream.
        RetryableError: NATS does not answer.
    """
    stream = stream_name(source)
    found: list[Delivered] = []
    with connect(nats) as connection:
        info = api.stream_info(connection, stream)
        if info is None:
            raise ConfigError(
                "try.no_stream",
                "the stream does not exist yet",
                where=stream,
                cure=f"run the flow capture/{source} first",
            )
        schemas = SchemaStore(connection)
        sequence = info.state.last_seq
        while len(found) < count and sequence >= info.state.first_seq:
            message = api.message(connection, stream, sequence)
            headers = parse_headers(message.hdrs) if message else None
            if message is not None and headers is not None:
                payload = message.data
                if headers.encoding or headers.object:
                    payload = resolve(connection, headers.encoding, headers.object, payload)
                if headers.op:
                    payload = wrapped(headers.op, headers.key, payload)
                table = schemas.get(headers.schema) if headers.schema else None
                found.append(
                    Delivered(
                        sequence,
                        message.subject,
                        headers.position,
                        headers.key,
                        table,
                        headers.transaction,
                        headers.last,
                        payload,
                        headers.unavailable,
                        headers.json_nulls,
                    )
                )
            sequence -= 1
    return found[::-1]
