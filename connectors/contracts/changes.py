"""What travels: rows' changes, the shapes that they were written under, and their limits.

Single changes never travel alone but in chunks and batches: a step that needs one unpacks them.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from json import dumps, loads
from typing import NamedTuple

import msgspec

# A chunk holds at most this many changes: JetStream's limit for one atomic batch is 1000.
CHUNK_CHANGES = 1000

# A chunk holds at most about this many bytes, so that memory stays flat whatever the rows' size.
CHUNK_BYTES = 8 * 1024 * 1024

# The op of a `Change` that tells of a DDL statement, from its source to where topics are chosen: it
# is stored as an `m` of the source's schema topic, and no pipeline is given it.
DDL = "ddl"


class Column(msgspec.Struct, frozen=True):
    """A column as its source declares it.

    Attributes:
        name: The column's name, unquoted.
        type: The source's own type, as in its DDL: `numeric(10,2)`, `text[]`, `shop.mood`.
        json: How values appear in the envelope: `number`, `boolean`, `string`, `base64`, `json`,
            `array` (JSON array of strings, numbers or booleans) or `array:base64`, `array:json`.
        portable: False where `type` exists only in the source (enum, domain, composite,
            extension types): a sink of the same kind then stores the value as text.
    """

    name: str
    type: str
    json: str = "string"
    portable: bool = True


class TableSchema(msgspec.Struct, frozen=True, dict=True):
    """One version of a table's shape, stored once under its `hash`.

    Attributes:
        source: The source's name in the configuration.
        schema: Namespace in the source (PostgreSQL schema, MySQL database).
        name: The table's name.
        columns: In the source's order.
        key: Names of the columns that identify a row, in the columns' order; empty: there are none.
        dialect: Whose type names these are: `postgresql`, `mysql`, `mariadb`, `json`.
    """

    source: str
    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    dialect: str = "postgresql"

    @cached_property
    def encoded(self) -> bytes:
        """The JSON that is stored; `decode` reads it back."""
        return msgspec.json.encode(self)

    @cached_property
    def hash(self) -> str:
        """32 hex digits that name this version (BLAKE2b-128 of `encoded`)."""
        return blake2b(self.encoded, digest_size=16).hexdigest()

    @staticmethod
    def decode(data: bytes) -> TableSchema:
        """Read what `encoded` wrote."""
        return msgspec.json.decode(data, type=TableSchema)


class Change(NamedTuple):
    """One row-level event, its envelope already rendered as JSON.

    Attributes:
        op: `c` create, `u` update, `d` delete, `r` read, `t` truncate, `m` logical message, or
            `DDL`.
        table: The shape that the row was written under; None for `m` and `DDL`.
        position: Where the change stands in its source: fixed width, sorts like the log.
        key: The key's columns, in the table's order, as a JSON object in ASCII without blanks; None
            for `t`, `m` and keyless tables.
        transaction: The source's transaction id; empty outside one.
        last: True on the last change of a transaction.
        envelope: The Debezium envelope as UTF-8 JSON: `before`, `after`, `source`, `op`, `ts_ms`,
            `transaction`; for `m` also `message`.
        unavailable: Columns whose value the log did not carry (unchanged TOAST); `after` holds
            `UNAVAILABLE` for them.
        json_nulls: Columns of `after` whose value is the JSON null, which the envelope writes like
            an SQL NULL; columns whose `Column.json` is `json`, not arrays of such values.
        failed: Empty, or why a pipeline could not work on the change, which is then stored as it
            came (`Failure.encoded`): it is a dead letter to every sink that reads it.
    """

    op: str
    table: TableSchema | None
    position: str
    key: str | None
    transaction: str
    last: bool
    envelope: bytes
    unavailable: tuple[str, ...] = ()
    json_nulls: tuple[str, ...] = ()
    failed: str = ""


class UnwrappedChange(Change):
    """A change whose `envelope` is the new row alone, or null where there is none.

    Its op is stored in a header, and delivery makes an envelope again (`wrapping`).
    """

    __slots__ = ()


class Failure(msgspec.Struct, frozen=True):
    """Why a filter or a transform could not work on a change.

    Attributes:
        pipeline: Whose: a pipeline's name, or `sinks.<name>` for a sink's own steps.
        code: Stable dotted identifier, such as `filter.no_such_field`.
        message: What is wrong, without the row's values.
    """

    pipeline: str
    code: str
    message: str

    @property
    def encoded(self) -> str:
        """JSON in ASCII on one line, as it is stored in a header; `decode` reads it back."""
        return dumps([self.pipeline, self.code, self.message], separators=(",", ":"))

    @staticmethod
    def decode(text: str) -> Failure:
        """Read what `encoded` wrote."""
        return Failure(*loads(text))


# Stands in `after` for a column whose value the log did not carry (Debezium's own marker).
UNAVAILABLE = "__debezium_unavailable_value"


class Delivered(NamedTuple):
    """A change as it lies in a stream.

    Attributes:
        sequence: The stream's sequence of the message.
        subject: Where it lies: `CDC.<source>.<topic>.<partition>`.
        position: As in `Change`.
        key: As in `Change`.
        table: As in `Change`.
        transaction: As in `Change`.
        last: As in `Change`.
        envelope: As in `Change`; large rows are already resolved.
        unavailable: As in `Change`.
        json_nulls: As in `Change`.
        failed: As in `Change`.
    """

    sequence: int
    subject: str
    position: str
    key: str | None
    table: TableSchema | None
    transaction: str
    last: bool
    envelope: bytes
    unavailable: tuple[str, ...] = ()
    json_nulls: tuple[str, ...] = ()
    failed: str = ""
