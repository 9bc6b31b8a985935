"""From changes in stream order to the few steps that bring a target to the same state.

Free of I/O. Several changes of one key become its last state, so that a table needs one delete and
one upsert for a whole batch. Rows stay the JSON bytes they are in the stream; keys are decoded.

A step boundary stands wherever collapsing across it could end in another state than applying one by
one: around truncates, around rows that must be moved in place, where a table's shape changes, and
before a delete from a table that others refer to (`ON DELETE CASCADE` would take rows with it that
had been given another parent earlier in the batch).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from connectors.postgres.target.envelope import NULL, Envelope, Timed, committed_at
from connectors.postgres.target.keys import Keys
from connectors.postgres.target.steps import (
    Merge,
    Move,
    Row,
    TableMerge,
    Truncate,
    no_key,
    unreadable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from connectors.contracts.changes import Delivered, TableSchema
    from connectors.postgres.target.keys import Key
    from connectors.postgres.target.steps import Step


@dataclass(slots=True)
class _Pending:
    table: TableSchema
    keys: Keys
    deletes: dict[Hashable, bytes] = field(default_factory=dict)
    rows: dict[Hashable, Row] = field(default_factory=dict)


class Collapser:
    """Collapses batches; keeps what it learned about table shapes.

    Args:
        referenced: Tells whether foreign keys of the target point to a table.
        deleted: The column that marks deleted rows, which then stay; empty: they do not.
    """

    def __init__(self, referenced: Callable[[TableSchema], bool], deleted: str = "") -> None:
        self._referenced = referenced
        self._deleted = deleted
        self._keys: dict[str, Keys] = {}
        envelope = Timed if deleted else Envelope
        self._envelope: Callable[[bytes], Envelope] = msgspec.json.Decoder(envelope).decode

    def collapse(self, changes: Iterable[Delivered]) -> list[Step]:
        """Return the steps that have the same effect as the changes, one by one in their order.

        Raises:
            PermanentError: A table without key, or an envelope that cannot be read.
        """
        run = _Run(self._referenced, keeping=bool(self._deleted))
        for change in changes:
            table = change.table
            if table is None:  # a logical message concerns no table
                continue
            try:
                self._add(run, change, table)
            except msgspec.MsgspecError as error:
                raise unreadable(change, table, error) from error
        return run.finish()

    def _add(self, run: _Run, change: Delivered, table: TableSchema) -> None:
        envelope = self._envelope(change.envelope)
        op = envelope.op
        if op == "m":
            return
        if op == "t":
            run.truncate(table, committed_at(envelope) if isinstance(envelope, Timed) else "")
            return
        if change.key is None or not table.key:
            raise no_key(table, change.sequence)
        pending = run.table(table, self._keys_of(table))
        keys = pending.keys
        key = keys.read(change.key)
        if op == "d":
            mark = self._mark(envelope) if isinstance(envelope, Timed) else b""
            run.delete(pending, keys.identity(key), change.key.encode(), mark)
            return
        if op not in ("c", "u", "r"):
            raise msgspec.ValidationError(f"unknown operation {op!r}")
        row = Row(envelope.after, change.unavailable, change.json_nulls)
        # before holds the old key when the key changed, and the whole row under identity FULL
        if op == "u" and memoryview(envelope.before) != NULL:
            old = keys.read(envelope.before)
            if keys.identity(old) != keys.identity(key):
                run.rekey(pending, old, keys.identity(key), row)
                return
        run.upsert(pending, keys.identity(key), row)

    def _mark(self, envelope: Timed) -> bytes:
        """The member that marks a row as deleted, and the closing brace."""
        return msgspec.json.encode({self._deleted: committed_at(envelope)})[1:]

    def _keys_of(self, table: TableSchema) -> Keys:
        keys = self._keys.get(table.hash)
        if keys is None:
            keys = self._keys[table.hash] = Keys(table)
        return keys


class _Run:
    """The state of one call of `collapse`."""

    def __init__(self, referenced: Callable[[TableSchema], bool], *, keeping: bool) -> None:
        self._referenced = referenced
        self._keeping = keeping
        self._steps: list[Step] = []
        self._pending: dict[tuple[str, str], _Pending] = {}
        self._has_rows = False

    def table(self, table: TableSchema, keys: Keys) -> _Pending:
        name = (table.schema, table.name)
        pending = self._pending.get(name)
        if pending is not None and pending.table is not table and pending.table.hash != table.hash:
            self._cut()
            pending = None
        if pending is None:
            pending = self._pending[name] = _Pending(table, keys)
        return pending

    def delete(self, pending: _Pending, identity: Hashable, key: bytes, mark: bytes = b"") -> None:
        if self._keeping:
            row = pending.rows.get(identity)
            if row is None:
                pending.deletes.setdefault(identity, _marked(key, mark))
            elif not row.deleted:
                json = _marked(row.json, mark)
                pending.rows[identity] = Row(json, row.missing, row.json_nulls, deleted=True)
            return
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

    def rekey(self, pending: _Pending, old: Key, identity: Hashable, row: Row) -> None:
        before = pending.keys.identity(old)
        earlier = pending.rows.get(before)
        if row.missing and earlier is not None:
            row = _filled(row, earlier)
        if row.missing or self._keeping or self._referenced(pending.table):
            self._cut()
            self._steps.append(Move(pending.table, msgspec.json.encode(old), row))
            return
        self.delete(pending, before, msgspec.json.encode(old))
        self.upsert(pending, identity, row)

    def truncate(self, table: TableSchema, at: str) -> None:
        self._cut()
        last = self._steps[-1] if self._steps else None
        if isinstance(last, Truncate) and not self._keeping:
            last.tables.append(table)
        else:
            self._steps.append(Truncate([table], at))

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


def _marked(row: msgspec.Raw | bytes, mark: bytes) -> bytes:
    """Add a member, which ends in the closing brace, to a JSON object that has others."""
    return b"".join((memoryview(row)[:-1], b",", mark))


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
