"""From changes in stream order to the few steps that bring a target to the same state.

Free of I/O. Several changes of one key become its last state, so that a table needs one delete and
one upsert for a whole batch. Rows stay the JSON bytes they are in the stream; keys are decoded.

A step boundary stands wherever collapsing across it could end in another state than applying one by
one: around truncates, around rows that must be moved in place, where a table's shape changes, and
before a delete from a table that others refer to (`ON DELETE CASCADE` would take rows with it that
had been given another parent earlier in the batch).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import msgspec

from connectors.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from connectors.contracts import Delivered, TableSchema

_NULL = b"null"
# What msgspec does not take as the name of a field.
_ODD_NAME = re.compile(r'["\\\x00-\x1f]')
# A key's values: a struct made for the table, or a dictionary where names are odd.
_Key: TypeAlias = "msgspec.Struct | dict[str, object]"


class Envelope(msgspec.Struct):
    """What of a Debezium envelope decides how a row is applied."""

    op: str
    before: msgspec.Raw = msgspec.Raw(_NULL)
    after: msgspec.Raw = msgspec.Raw(_NULL)


class Row(NamedTuple):
    """A row's last state.

    Attributes:
        json: The row as a JSON object.
        missing: Columns whose value is unknown and must be left as it is in the target.
        json_nulls: As in `contracts.Change`.
    """

    json: msgspec.Raw | bytes
    missing: tuple[str, ...] = ()
    json_nulls: tuple[str, ...] = ()


@dataclass(slots=True)
class TableMerge:
    """Deletes, then upserts of one table; a key may be in both (deleted and made again).

    Attributes:
        table: The shape of all rows in here.
        deletes: Keys as JSON objects.
        rows: Rows in the order of their last change.
    """

    table: TableSchema
    deletes: list[bytes]
    rows: list[Row]


@dataclass(slots=True)
class Merge:
    """Set-based deletes and upserts; no key is twice among the deletes or among the rows."""

    tables: list[TableMerge]


@dataclass(slots=True)
class Truncate:
    """Tables that are emptied together."""

    tables: list[TableSchema]


@dataclass(slots=True)
class Move:
    """A row whose key changes and that must stay the same row.

    Attributes:
        table: The row's shape.
        old: The key it had, as a JSON object.
        row: What it is now.
    """

    table: TableSchema
    old: bytes
    row: Row


Step = Merge | Truncate | Move


class _Keys:
    """Reads the key's columns of one table shape out of a key or a row."""

    def __init__(self, table: TableSchema) -> None:
        kinds = {column.name: column.json for column in table.columns}
        nested = {"json", "array", "array:base64", "array:json"}
        self._nested = any(kinds.get(name) in nested for name in table.key)
        self._names = table.key
        self.read: Callable[[str | msgspec.Raw], _Key]
        if any(_ODD_NAME.search(name) for name in table.key):
            self._nested = True
            self.read = self._read_odd
            return
        fields = [(f"k{index}", Any) for index in range(len(table.key))]
        names = {f"k{index}": name for index, name in enumerate(table.key)}
        struct = msgspec.defstruct("Key", fields, rename=names, frozen=True)
        self.read = msgspec.json.Decoder(struct).decode

    def identity(self, key: _Key) -> Hashable:
        """Equal for equal keys."""
        return msgspec.json.encode(key) if self._nested else cast("msgspec.Struct", key)

    def _read_odd(self, data: str | msgspec.Raw) -> _Key:
        row = msgspec.json.decode(data, type=dict[str, object])
        lacking = [name for name in self._names if name not in row]
        if lacking:
            raise msgspec.ValidationError(f"the key's column {lacking[0]} is missing")
        return {name: row[name] for name in self._names}


@dataclass(slots=True)
class _Pending:
    table: TableSchema
    keys: _Keys
    deletes: dict[Hashable, bytes] = field(default_factory=dict)
    rows: dict[Hashable, Row] = field(default_factory=dict)


class Collapser:
    """Collapses batches; keeps what it learned about table shapes.

    Args:
        referenced: Tells whether foreign keys of the target point to a table.
    """

    def __init__(self, referenced: Callable[[TableSchema], bool]) -> None:
        self._referenced = referenced
        self._keys: dict[str, _Keys] = {}
        self._envelope = msgspec.json.Decoder(Envelope).decode

    def collapse(self, changes: Iterable[Delivered]) -> list[Step]:
        """Return the steps that have the same effect as the changes, one by one in their order.

        Raises:
            PermanentError: A table without key, or an envelope that cannot be read.
        """
        run = _Run(self._referenced)
        for change in changes:
            table = change.table
            if table is None:  # a logical message concerns no table
                continue
            try:
                self._add(run, change, table)
            except msgspec.MsgspecError as error:
                raise PermanentError(
                    "postgres.unreadable_change",
                    f"sequence {change.sequence} cannot be applied: {error}",
                    where=f"{table.schema}.{table.name}",
                    cure="the message is damaged: `waxtap dlq discard` it, and write the row again "
                    "in the source",
                    sequence=change.sequence,
                ) from error
        return run.finish()

    def _add(self, run: _Run, change: Delivered, table: TableSchema) -> None:
        envelope = self._envelope(change.envelope)
        op = envelope.op
        if op == "m":
            return
        if op == "t":
            run.truncate(table)
            return
        if change.key is None or not table.key:
            raise no_key(table, change.sequence)
        pending = run.table(table, self._keys_of(table))
        keys = pending.keys
        key = keys.read(change.key)
        if op == "d":
            run.delete(pending, keys.identity(key), change.key.encode())
            return
        if op not in ("c", "u", "r"):
            raise msgspec.ValidationError(f"unknown operation {op!r}")
        row = Row(envelope.after, change.unavailable, change.json_nulls)
        # before holds the old key when the key changed, and the whole row under identity FULL
        if op == "u" and memoryview(envelope.before) != _NULL:
            old = keys.read(envelope.before)
            if keys.identity(old) != keys.identity(key):
                run.rekey(pending, old, keys.identity(key), row)
                return
        run.upsert(pending, keys.identity(key), row)

    def _keys_of(self, table: TableSchema) -> _Keys:
        keys = self._keys.get(table.hash)
        if keys is None:
            keys = self._keys[table.hash] = _Keys(table)
        return keys


class _Run:
    """The state of one call of `collapse`."""

    def __init__(self, referenced: Callable[[TableSchema], bool]) -> None:
        self._referenced = referenced
        self._steps: list[Step] = []
        self._pending: dict[tuple[str, str], _Pending] = {}
        self._has_rows = False

    def table(self, table: TableSchema, keys: _Keys) -> _Pending:
        name = (table.schema, table.name)
        pending = self._pending.get(name)
        if pending is not None and pending.table is not table and pending.table.hash != table.hash:
            self._cut()
            pending = None
        if pending is None:
            pending = self._pending[name] = _Pending(table, keys)
        return pending

    def delete(self, pending: _Pending, identity: Hashable, key: bytes) -> None:
        if self._has_rows and self._referenced(pending.table):
            pending = self._restart(pending)
        pending.rows.pop(identity, None)
        pending.deletes[identity] = key

    def upsert(self, pending: _Pending, identity: Hashable, row: Row) -> None:
        earlier = pending.rows.pop(identity, None)
        if row.missing and earlier is not None:
            row = _filled(row, earlier)
        pending.rows[identity] = row
        self._has_rows = True

    def rekey(self, pending: _Pending, old: _Key, identity: Hashable, row: Row) -> None:
        before = pending.keys.identity(old)
        earlier = pending.rows.get(before)
        if row.missing and earlier is not None:
            row = _filled(row, earlier)
        if row.missing or self._referenced(pending.table):
            self._cut()
            self._steps.append(Move(pending.table, msgspec.json.encode(old), row))
            return
        self.delete(pending, before, msgspec.json.encode(old))
        self.upsert(pending, identity, row)

    def truncate(self, table: TableSchema) -> None:
        self._cut()
        last = self._steps[-1] if self._steps else None
        if isinstance(last, Truncate):
            last.tables.append(table)
        else:
            self._steps.append(Truncate([table]))

    def finish(self) -> list[Step]:
        self._cut()
        return self._steps

    def _restart(self, pending: _Pending) -> _Pending:
        self._cut()
        return self.table(pending.table, pending.keys)

    def _cut(self) -> None:
        merges = [
            TableMerge(pending.table, list(pending.deletes.values()), list(pending.rows.values()))
            for pending in self._pending.values()
            if pending.deletes or pending.rows
        ]
        if merges:
            self._steps.append(Merge(merges))
        self._pending = {}
        self._has_rows = False


def no_key(table: TableSchema, sequence: int = 0) -> PermanentError:
    """The error of a table whose rows cannot be told apart."""
    return PermanentError(
        "postgres.no_key",
        "rows without a key cannot be found again in the target",
        where=f"{table.schema}.{table.name}",
        cure="give the source table a primary key, or a unique index as its replica identity "
        "(ALTER TABLE … REPLICA IDENTITY USING INDEX …); its changes that the stream holds already "
        "stay without one: leave the table out of the sink's `topics`",
        sequence=sequence,
    )


def _filled(row: Row, earlier: Row) -> Row:
    """Take values that `row` lacks from an earlier state of the same row."""
    known = [name for name in row.missing if name not in earlier.missing]
    if not known:
        return row
    values = msgspec.json.decode(row.json, type=dict[str, msgspec.Raw])
    before = msgspec.json.decode(earlier.json, type=dict[str, msgspec.Raw])
    values.update((name, before[name]) for name in known if name in before)
    missing = tuple(name for name in row.missing if name not in known)
    filled = (name for name in known if name in earlier.json_nulls)
    return Row(msgspec.json.encode(values), missing, (*row.json_nulls, *filled))
