"""An independent account of what was committed: a second slot, and a decoder that shares no code.

The slot is made before the workload and read once, at the end, by SQL. So it tells every committed
row change in commit order, whatever happened to the flows in between.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLOT = "independent_witness"
_PUBLICATION = "independent_witness"


class Event(NamedTuple):
    """One committed change.

    Attributes:
        op: `c`, `u`, `d`, `t` or `m`.
        table: `schema.table`, or the prefix of a message.
        key: The key's columns as text, sorted by name; None where there is no key.
        old_key: For an update that changed the key: the key before it.
    """

    op: str
    table: str
    key: tuple[tuple[str, str], ...] | None
    old_key: tuple[tuple[str, str], ...] | None = None


class Transaction(NamedTuple):
    """A committed transaction with at least one change.

    Attributes:
        xid: Its id; 0 for a message outside any transaction.
        events: In the order of the log.
    """

    xid: int
    events: list[Event]


class _Relation(NamedTuple):
    name: str
    columns: list[tuple[str, bool]]


class _Bytes:
    """Reads one pgoutput message (PostgreSQL documentation, chapter 55.9)."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 1
        self.kind = data[:1].decode("ascii")

    def integer(self, size: int) -> int:
        value = int.from_bytes(self._data[self._at : self._at + size], "big")
        self._at += size
        return value

    def text(self) -> str:
        end = self._data.index(b"\0", self._at)
        value = self._data[self._at : end].decode("utf-8")
        self._at = end + 1
        return value

    def letter(self) -> str:
        return chr(self.integer(1))

    def row(self) -> list[str | None]:
        values: list[str | None] = []
        for _ in range(self.integer(2)):
            match self.letter():
                case "n":
                    values.append(None)
                case "u":
                    values.append("(unchanged)")
                case "t":
                    (size,) = struct.unpack_from("!i", self._data, self._at)
                    self._at += 4
                    values.append(self._data[self._at : self._at + size].decode("utf-8"))
                    self._at += size
                case other:
                    raise ValueError(f"column kind {other!r}")
        return values


class Witness:
    """Made before the workload, asked after it.

    Args:
        dsn: Of the source database, with all its tables.
        keys: The key's columns, by `schema.table`.
    """

    def __init__(self, dsn: str, keys: dict[str, tuple[str, ...]]) -> None:
        self._dsn, self._keys = dsn, keys
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"CREATE PUBLICATION {_PUBLICATION} FOR ALL TABLES".encode())
            connection.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [_SLOT])

    def read(self) -> Iterator[Transaction]:
        """Every transaction since the witness was made, in commit order; to be called once."""
        relations: dict[int, _Relation] = {}
        xid, events = 0, list[Event]()
        for data in self._messages():
            message = _Bytes(data)
            match message.kind:
                case "B":
                    message.integer(16)
                    xid, events = message.integer(4), []
                case "C":
                    if events:
                        yield Transaction(xid, events)
                    xid = 0
                case "R":
                    oid = message.integer(4)
                    relations[oid] = self._relation(message)
                case "I":
                    relation = relations[message.integer(4)]
                    message.letter()
                    events.append(Event("c", relation.name, self._key(relation, message.row())))
                case "U":
                    events.append(self._update(relations, message))
                case "D":
                    relation = relations[message.integer(4)]
                    message.letter()
                    events.append(Event("d", relation.name, self._key(relation, message.row())))
                case "T":
                    count = message.integer(4)
                    message.integer(1)
                    events += [
                        Event("t", relations[message.integer(4)].name, None) for _ in range(count)
                    ]
                case "M":
                    transactional = message.integer(1)
                    message.integer(8)
                    event = Event("m", message.text(), None)
                    if transactional:
                        events.append(event)
                    else:
                        yield Transaction(0, [event])
                case "Y" | "O":
                    pass
                case other:
                    raise ValueError(f"message {other!r}")

    def _messages(self) -> Iterator[bytes]:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            while True:
                rows = connection.execute(
                    "SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, 5000,"
                    " 'proto_version', '1', 'publication_names', %s, 'messages', 'true')",
                    [_SLOT, _PUBLICATION],
                    binary=True,
                ).fetchall()
                if not rows:
                    return
                for (data,) in rows:
                    yield bytes(data)

    @staticmethod
    def _relation(message: _Bytes) -> _Relation:
        schema, name = message.text(), message.text()
        message.integer(1)
        columns = []
        for _ in range(message.integer(2)):
            part_of_key = message.integer(1) == 1
            columns.append((message.text(), part_of_key))
            message.integer(8)
        return _Relation(f"{schema}.{name}", columns)

    def _key(self, relation: _Relation, row: list[str | None]) -> tuple[tuple[str, str], ...]:
        values = {
            name: value
            for (name, _), value in zip(relation.columns, row, strict=True)
            if value is not None
        }
        return tuple((name, values[name]) for name in sorted(self._keys[relation.name]))

    def _update(self, relations: dict[int, _Relation], message: _Bytes) -> Event:
        relation = relations[message.integer(4)]
        old: tuple[tuple[str, str], ...] | None = None
        if (letter := message.letter()) in "KO":
            old = self._key(relation, message.row())
            letter = message.letter()
        if letter != "N":
            raise ValueError(f"tuple kind {letter!r} in an update")
        key = self._key(relation, message.row())
        return Event("u", relation.name, key, old if old != key else None)
