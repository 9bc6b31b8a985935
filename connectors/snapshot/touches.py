"""Which rows of a chunk that was read beside the log are already out of date.

A chunk is read in a snapshot of the database while the log is read as well. A row may leave behind
the changes that were emitted so far only if the snapshot holds all of them that concern the row:
else an old row would follow, and overwrite, a newer one. (What the snapshot holds beyond them is
no harm: the log brings it once more.) So the keys that changes of the table touch are noted from
before the chunk is read until its last row is given out, with the transactions that touched them.

After: Andreakis and Papapanagiotou, "DBLog: A Watermark Based Change-Data-Capture Framework",
2020; without its writes to the source, and without its assumption that a transaction is visible
once it is in the log: a commit that waits for a synchronous standby is not.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

import msgspec

from connectors.json_text import ascii_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connectors.contracts.changes import Change, TableSchema

# More keys than that are not noted: the chunk is read once more.
MOST_TOUCHED = 200_000
# More transactions than that are not remembered between two chunks.
MOST_TRANSACTIONS = 200_000

INVISIBLE = "a transaction is in the log that is not visible yet"

_NO_BEFORE = b'{"before":null,'


class Visibility(Protocol):
    """What a snapshot of the database holds."""

    def sees(self, transaction: str) -> bool:
        """Whether a transaction had ended when the snapshot was taken."""
        ...


class _Images(msgspec.Struct):
    before: msgspec.Raw
    after: msgspec.Raw


class Emitted:
    """The transactions that were emitted, as far as a snapshot may not hold them yet.

    Attributes:
        overflowed: There were too many: `restart` is needed.
    """

    def __init__(self) -> None:
        self._transactions: set[str] = set()
        self.overflowed = False

    def add(self, changes: Iterable[Change]) -> None:
        """These are given out."""
        self._transactions.update({change.transaction for change in changes})
        self._transactions.discard("")
        if len(self._transactions) > MOST_TRANSACTIONS:
            self._transactions.clear()
            self.overflowed = True

    def restart(self, running: Iterable[str]) -> None:
        """Whatever was emitted before and is not visible yet is among the `running`."""
        self._transactions.update(running)
        self.overflowed = False

    def release(self, transactions: Iterable[str]) -> None:
        """Nothing of these was emitted before the last `restart`, and they may be forgotten."""
        self._transactions.difference_update(transactions)

    def forget(self, visible: Visibility) -> None:
        """A snapshot was taken: what it sees, every later one sees."""
        self._transactions = {each for each in self._transactions if not visible.sees(each)}

    def snapshot(self) -> frozenset[str]:
        """The transactions, as they are now."""
        return frozenset(self._transactions)


class Touches:
    """What happens to a table from before a chunk of it is read until the chunk is given out.

    Args:
        schema: The table's namespace, as changes name it.
        name: The table's name.
        before: The transactions whose changes were emitted before this moment, and whose keys
            therefore nobody has noted.
        most: How many keys are noted at most.

    Attributes:
        spoilt: Why the chunk must be read again; empty: it need not.
    """

    def __init__(
        self, schema: str, name: str, before: frozenset[str], most: int = MOST_TOUCHED
    ) -> None:
        self._schema, self._name, self._before, self._most = schema, name, before, most
        self._touched: dict[str | bytes, set[str]] = {}
        # Changes that do not carry the whole row: a row that is left out for one is never whole.
        self._partial: dict[str | bytes, set[str]] = {}
        self._shape: TableSchema | None = None
        self._visible: Visibility | None = None
        self.spoilt = ""

    @property
    def touched(self) -> bool:
        """Whether any row of the table was."""
        return bool(self._touched)

    def note(self, changes: Iterable[Change]) -> None:
        """These are given out."""
        if self.spoilt:
            return
        for change in changes:
            table = change.table
            if table is not None and table.name == self._name and table.schema == self._schema:
                self._note(change, table)

    def read(self, visible: Visibility) -> None:
        """The chunk was read in a snapshot that holds this much.

        It is spoilt when a transaction whose keys nobody noted is not in it.
        """
        self._visible = visible
        if not self.spoilt and not all(visible.sees(each) for each in self._before):
            self.spoilt = INVISIBLE

    def release(self, transactions: Iterable[str]) -> None:
        """As `Emitted.release`."""
        self._before = self._before.difference(transactions)

    def outdated(self, row: Change) -> bool:
        """Whether a row of the chunk must be left out, because a newer one was given out.

        What was given out for it need not be whole; then the chunk is spoilt.
        """
        if not self._touched:
            return False
        token = row.key if row.key is not None else _after(row)
        if token not in self._touched or self._all_seen(self._touched[token]):
            return False
        if token in self._partial and not self._all_seen(self._partial[token]):
            self.spoilt = "a change that does not carry the whole row met one of its rows"
        return True

    def _all_seen(self, transactions: set[str]) -> bool:
        visible = self._visible
        return visible is not None and all(visible.sees(each) for each in transactions)

    def _note(self, change: Change, table: TableSchema) -> None:
        if change.op == "t":
            self.spoilt = "the table was truncated"
        elif self._shape not in (None, table):
            self.spoilt = "the table's shape has changed"
        elif len(self._touched) >= self._most:
            self.spoilt = "too many of the table's rows were changed meanwhile"
        if self.spoilt:
            self._touched.clear()
            return
        self._shape = table
        for token in _tokens(change, table):
            self._touched.setdefault(token, set()).add(change.transaction)
            if change.unavailable:
                self._partial.setdefault(token, set()).add(change.transaction)


def _tokens(change: Change, table: TableSchema) -> Iterable[str | bytes]:
    """By what the rows that a change touched are known: their keys; without one, all they hold."""
    if change.key is not None:
        yield change.key
    if change.envelope.startswith(_NO_BEFORE):
        return
    before = msgspec.json.decode(change.envelope, type=_Images).before
    if change.key is None:
        yield bytes(before)
    elif change.op == "u":
        yield _key_of(before, table)


def _key_of(row: msgspec.Raw, table: TableSchema) -> str:
    """The key of a row, byte for byte as `Change.key` writes it."""
    fields = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
    members = (
        f"{json.dumps(name, ensure_ascii=False)}:{bytes(fields[name]).decode()}"
        for name in table.key
    )
    return ascii_json("{" + ",".join(members) + "}")


def _after(row: Change) -> bytes:
    return bytes(msgspec.json.decode(row.envelope, type=_Images).after)
