"""The versions of each table's shape, in order: which they were, and since which position.

The bucket `CDC_SCHEMAS` holds them beside the shapes, under `versions.<source>.<schema>.<table>`
(other characters than letters, digits, `_` and `-` as `=XX`). A version is written before the first
change that it is of, so after a crash the last ones may be of changes that were never stored: a
version counts if its position is not behind what the stream holds. What does not count is written
again, with the same number, when the same changes are captured again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import msgspec

from connectors.errors import GapError
from connectors.jetstream import api
from connectors.jetstream.key_values import replace
from connectors.jetstream.schemas import BUCKET

if TYPE_CHECKING:
    from connectors.contracts.changes import TableSchema
    from connectors.jetstream.connection import Connection
    from connectors.jetstream.schemas import SchemaStore

STREAM = f"KV_{BUCKET}"
_SUBJECT = f"$KV.{BUCKET}."
_PREFIX = "versions"
# Older ones are forgotten: a value must fit into a message.
MOST = 1000
# Sources without declared tables may bring a new shape with each row.
MOST_OF_JSON = 100


class Version(msgspec.Struct, frozen=True):
    """One version of a table's shape.

    Attributes:
        number: 1, 2, 3 … of the table.
        hash: Of the shape.
        position: Of the first change that was written under it.
        time: When that was captured, in milliseconds since 1970.
    """

    number: int
    hash: str
    position: str
    time: int


class TableVersions(msgspec.Struct, frozen=True):
    """All versions of one table, the oldest first."""

    source: str
    schema: str
    name: str
    versions: tuple[Version, ...] = ()
    v: int = 1

    def upto(self, position: str) -> TableVersions:
        """Those that count where a stream holds everything up to a position."""
        counted = tuple(each for each in self.versions if each.position <= position)
        return TableVersions(self.source, self.schema, self.name, counted)


class NewVersion(NamedTuple):
    """A version that was not known before.

    Attributes:
        version: It.
        before: The hash of the one before it; empty: it is the first.
    """

    version: Version
    before: str


class ShapeVersions:
    """Counts the versions of one source's tables. Used by the stream's only writer.

    Args:
        connection: Where the bucket is.
        source: The source's name.
        upto: The position up to which the stream holds everything.
        schemas: Where the shapes are stored.
    """

    def __init__(
        self, connection: Connection, source: str, upto: str, schemas: SchemaStore
    ) -> None:
        self._connection, self._source, self._upto = connection, source, upto
        self._schemas = schemas
        self._known: dict[tuple[str, str], TableVersions] = {}

    def note(self, table: TableSchema, position: str) -> NewVersion | None:
        """Return once the bucket tells that a change at `position` has this shape.

        Returns:
            None: the table had this shape before, or tells of no columns.

        Raises:
            RetryableError: NATS does not answer.
            ConfigError: We are not allowed to write.
            GapError: What the bucket holds is damaged.
        """
        if not table.columns:
            return None
        name = (table.schema, table.name)
        known = self._known.get(name)
        if known is None:
            found, _ = read(self._connection, key_of(self._source, *name))
            known = found or TableVersions(self._source, *name)
            known = self._known[name] = known.upto(self._upto)
        versions = known.versions
        if versions and versions[-1].hash == table.hash:
            return None
        if table.dialect == "json" and (
            len(versions) >= MOST_OF_JSON or any(each.hash == table.hash for each in versions)
        ):
            return None
        self._schemas.put(table)
        number = versions[-1].number + 1 if versions else 1
        version = Version(number, table.hash, position, time.time_ns() // 1_000_000)
        known = TableVersions(self._source, *name, (*versions, version)[-MOST:])
        self._write(known)
        self._known[name] = known
        return NewVersion(version, versions[-1].hash if versions else "")

    def _write(self, known: TableVersions) -> None:
        key, data = key_of(known.source, known.schema, known.name), msgspec.json.encode(known)
        while True:
            _, revision = read(self._connection, key)
            # An older writer may be at work still: the stream refuses what it captures.
            if replace(self._connection, BUCKET, key, data, revision) is not None:
                return


def key_of(source: str, schema: str, name: str) -> str:
    """Where the versions of a table lie in the bucket."""
    return f"{_PREFIX}.{_token(source)}.{_token(schema)}.{_token(name)}"


def read(connection: Connection, key: str) -> tuple[TableVersions | None, int]:
    """The versions under a key (None: there are none), and the revision to replace.

    Raises:
        RetryableError: NATS does not answer.
        GapError: `jetstream.versions_unreadable`: they are damaged.
    """
    try:
        stored = api.last_message(connection, STREAM, f"{_SUBJECT}{key}")
    except api.ApiError as error:
        if error.err_code != api.STREAM_NOT_FOUND:
            raise
        stored = None
    if stored is None:
        return None, 0
    if not stored.data:
        return None, stored.seq
    try:
        return msgspec.json.decode(stored.data, type=TableVersions), stored.seq
    except msgspec.MsgspecError as error:
        raise GapError(
            "jetstream.versions_unreadable",
            f"the versions of a table's shape cannot be read: {error}",
            where=f"{BUCKET}.{key}",
            cure=f"`nats kv del {BUCKET} {key}`: they are counted from 1 again",
        ) from error


def pattern_of(source: str) -> str:
    """The subjects of the versions of all tables of a source."""
    return f"{_SUBJECT}{_PREFIX}.{_token(source)}.>"


def key_at(subject: str) -> str:
    """The key that lies at a subject of the bucket."""
    return subject.removeprefix(_SUBJECT)


def _token(name: str) -> str:
    """One token of a key: what a key-value store does not allow is `=XX` in UTF-8."""
    return quote(name, safe="").replace(".", "%2E").replace("~", "%7E").replace("%", "=")
