"""What is known of the records, and what a poll finds against it.

A temporary database of SQLite holds both: memory stays flat, whatever the number of records. What
is known is a hash a key; the `delta` is how that differs from the last whole state that was stored
(`base`), so that a poll that finds little has little to store.
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import BinaryIO, Self

    from connectors.rest.records import Item, Order

_SCHEMA = """
CREATE TABLE IF NOT EXISTS known
    (key TEXT PRIMARY KEY, hash BLOB NOT NULL, cursor) WITHOUT ROWID;
CREATE TABLE delta (key TEXT PRIMARY KEY, hash BLOB, cursor) WITHOUT ROWID;
CREATE TABLE seen
    (key TEXT PRIMARY KEY, hash BLOB NOT NULL, cursor, place INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE absent (key TEXT PRIMARY KEY, polls INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE gone (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_FAST = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -16384;"
# Where `seen.place` is negative, the record is as it was known.
_UNCHANGED = -1
_PREFIX = "waxtap-rest-"
_COPIED = 1024 * 1024
# SQLite may be built for no more than 999 parameters.
_KEYS = 500
_MARKS = ",".join("?" * _KEYS)
_VIEWS = """
CREATE TEMP VIEW changed AS SELECT key, hash, cursor, place FROM seen WHERE place >= 0;
CREATE TEMP VIEW missing AS
    SELECT key FROM known WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.key = known.key);
"""


class Entry(NamedTuple):
    """How a key's state differs from the base.

    Attributes:
        key: As in `records.Item`.
        hash: None: there is no such record any more.
        cursor: What its cursor sorts by.
    """

    key: str
    hash: bytes | None
    cursor: Order | None


class Found(NamedTuple):
    """A record that a poll found new or changed.

    Attributes:
        key: As in `records.Item`.
        hash: As in `records.Item`.
        cursor: What its cursor sorts by.
        text: The record as JSON.
        known: Whether another state of it was known.
    """

    key: str
    hash: bytes
    cursor: Order | None
    text: bytes
    known: bool


class Comparison:
    """One source's known records, and the poll under way. Used by one thread.

    Args:
        base: A state that `write_base` wrote, to begin with; None: nothing is known.
    """

    def __init__(self, base: BinaryIO | None = None) -> None:
        # Without a name, nothing stays behind a process that is killed.
        with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
            path = Path(folder) / "known"
            if base is not None:
                with path.open("wb") as file:
                    copyfileobj(base, file, _COPIED)
            # made by one thread, used by another
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.executescript(_FAST)
            self._db.executescript(_SCHEMA)
        self._db.executescript(_VIEWS)
        self._spool: BinaryIO | None = None
        self._place = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._end()
        self._db.close()

    @property
    def size(self) -> int:
        """How many records are known."""
        return self._number("SELECT count(*) FROM known")

    def patch(self, entries: Iterable[Entry]) -> None:
        """Bring what is known up to a later state; the entries are part of the delta then."""
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO delta VALUES (?, ?, ?)", entries)
            self._db.execute(
                "INSERT OR REPLACE INTO known SELECT * FROM delta WHERE hash IS NOT NULL"
            )
            self._db.execute(
                "DELETE FROM known WHERE key IN (SELECT key FROM delta WHERE hash IS NULL)"
            )

    def begin(self) -> None:
        """A poll begins; an older one is forgotten."""
        self._end()
        self._db.execute("DELETE FROM seen")
        self._db.execute("DELETE FROM gone")
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `_end`
        self._place = 0

    def add(self, items: Sequence[Item]) -> list[Item]:
        """Take the records of a page; of several with the same key the last one counts.

        Returns:
            Those that differ from what is known.
        """
        spool = self._spool
        if spool is None:
            raise RuntimeError("no poll has begun")
        rows, changed = [], []
        known = self._hashes([item.key for item in items])
        for item in items:
            place = _UNCHANGED
            if known.get(item.key) != item.hash:
                text = item.text
                place, self._place = self._place, self._place + len(text) + 1
                spool.write(text + b"\n")
                changed.append(item)
            rows.append((item.key, item.hash, item.order, place))
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", rows)
        return changed

    @property
    def changed(self) -> int:
        """How many records the poll has found new or changed."""
        return self._number("SELECT count(*) FROM changed")

    @property
    def missing(self) -> int:
        """How many known records the poll has not found."""
        return self._number("SELECT count(*) FROM missing")

    @property
    def seen(self) -> int:
        """How many records the poll has found."""
        return self._number("SELECT count(*) FROM seen")

    def give_up(self, polls: int) -> int:
        """Take those for gone that this poll and so many in a row with it have not found.

        To be called once a poll.

        Args:
            polls: 1: this one is enough; 0: it does not count, and none is gone.

        Returns:
            How many are gone.
        """
        with self._transaction():
            self._db.execute("DELETE FROM absent WHERE key IN (SELECT key FROM seen)")
            if polls:
                self._db.execute(
                    "INSERT INTO absent SELECT key, 1 FROM missing WHERE true"
                    " ON CONFLICT (key) DO UPDATE SET polls = polls + 1"
                )
                self._db.execute(
                    "INSERT INTO gone SELECT key FROM absent WHERE polls >= ?", (polls,)
                )
        return self._number("SELECT count(*) FROM gone")

    def deleted(self) -> Iterator[str]:
        """The keys of known records that are gone."""
        for (key,) in self._db.execute("SELECT key FROM gone"):
            yield key

    def found(self) -> Iterator[Found]:
        """The new and changed records, in the order in which the API gave them."""
        spool = self._spool
        if spool is None:
            return
        rows = self._db.execute(
            "SELECT c.key, c.hash, c.cursor, c.place, k.key IS NOT NULL FROM changed AS c"
            " LEFT JOIN known AS k ON k.key = c.key ORDER BY c.place"
        )
        for key, digest, cursor, place, known in rows:
            spool.seek(place)
            yield Found(key, digest, cursor, spool.readline()[:-1], bool(known))

    @property
    def delta_size(self) -> int:
        """How many entries the delta has."""
        return self._number("SELECT count(*) FROM delta")

    def delta(self) -> Iterator[Entry]:
        """How what is known differs from the base."""
        for row in self._db.execute("SELECT key, hash, cursor FROM delta"):
            yield Entry(*row)

    def settle(self, *, from_cursor: Order | None = None) -> None:
        """What the poll has found is known from now on, and what is gone no more.

        Args:
            from_cursor: Records before it are forgotten; None: none.
        """
        with self._transaction():
            for statement in (
                "INSERT OR REPLACE INTO delta SELECT key, NULL, NULL FROM gone",
                "DELETE FROM known WHERE key IN (SELECT key FROM gone)",
                "DELETE FROM absent WHERE key IN (SELECT key FROM gone)",
                "INSERT OR REPLACE INTO delta SELECT key, hash, cursor FROM changed",
                "INSERT OR REPLACE INTO known SELECT key, hash, cursor FROM changed",
            ):
                self._db.execute(statement)
            if from_cursor is not None:
                self.forget(from_cursor)
        self._end()

    def forget(self, before: Order) -> None:
        """Records whose cursor is smaller are no longer known."""
        self._db.execute("DELETE FROM known WHERE cursor < ?", (before,))
        self._db.execute("DELETE FROM delta WHERE cursor < ?", (before,))

    def write_base(self, into: BinaryIO) -> None:
        """Write all that is known, to begin with another time; the delta is empty then."""
        with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
            path = Path(folder) / "base"
            self._db.execute("ATTACH ? AS base", (str(path),))
            try:
                self._db.execute("PRAGMA base.journal_mode = OFF")
                self._db.execute(
                    "CREATE TABLE base.known"
                    " (key TEXT PRIMARY KEY, hash BLOB NOT NULL, cursor) WITHOUT ROWID"
                )
                with self._transaction():
                    self._db.execute("INSERT INTO base.known SELECT * FROM main.known ORDER BY key")
            finally:
                self._db.execute("DETACH base")
            with path.open("rb") as file:
                copyfileobj(file, into, _COPIED)

    def base_stored(self) -> None:
        """What `write_base` wrote is the base from now on."""
        self._db.execute("DELETE FROM delta")

    def _hashes(self, keys: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for start in range(0, len(keys), _KEYS):
            part = keys[start : start + _KEYS]
            marks = _MARKS if len(part) == _KEYS else ",".join("?" * len(part))
            query = "SELECT key, hash FROM known WHERE key IN (" + marks + ")"  # noqa: S608 - `?`
            found.update(self._db.execute(query, part))
        return found

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    def _end(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None


class _Transaction:
    """Many statements at once; without a journal nothing could be taken back."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.execute("COMMIT")
