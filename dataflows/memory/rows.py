"""What a stateful step remembers of rows: eight bytes each, of so many rows at most.

Rows and tables are named by hashes of eight bytes, so a memory's size depends on the number of rows
alone, and its snapshot is two strings of bytes. The rows that were touched longest ago are
forgotten first, some at a time.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import islice
from typing import TypeAlias

# Version, rows, their values, and the marks of emptied tables.
Packed: TypeAlias = tuple[int, bytes, bytes, tuple[tuple[bytes, bytes], ...]]

WIDTH = 8
_VERSION = 1
# A dict finds its first entry the slower the more were deleted before it, so they go in flocks.
_FLOCKS = 64


def short_hash(data: bytes) -> bytes:
    """Eight bytes of BLAKE2b."""
    return blake2b(data, digest_size=WIDTH).digest()


class RowMemory:
    """Remembers eight bytes for each of the rows that were touched last.

    Args:
        limit: How many rows are remembered; at least 63 of 64 of them are.
        packed: From `pack` of an earlier memory; of another version: it begins empty.
    """

    def __init__(self, limit: int, packed: Packed | None = None) -> None:
        self._limit = limit
        # In the order in which they were touched.
        self._values: dict[bytes, bytes] = {}
        # A table that was emptied gives all its rows new names: the old ones are never asked for
        # again, and age away.
        self._marks: dict[bytes, bytes] = {}
        if packed is not None and packed[0] == _VERSION:
            _, rows, values, marks = packed
            self._values.update(zip(_pieces(rows), _pieces(values), strict=True))
            self._marks.update(marks)
            self._shrink()

    def __len__(self) -> int:
        return len(self._values)

    def recall(self, table: bytes, row: bytes) -> bytes | None:
        """What is remembered of a row, which counts as touched; None: not known, or forgotten."""
        name = self._name(table, row)
        value = self._values.pop(name, None)
        if value is not None:
            self._values[name] = value
        return value

    def store(self, table: bytes, row: bytes, value: bytes) -> None:
        """Remember eight bytes for a row, which counts as touched."""
        name = self._name(table, row)
        self._values.pop(name, None)
        self._values[name] = value
        if len(self._values) > self._limit:
            self._shrink()

    def forget(self, table: bytes, row: bytes) -> None:
        """Forget a row."""
        self._values.pop(self._name(table, row), None)

    def forget_table(self, table: bytes, mark: bytes) -> None:
        """Forget all rows of a table.

        Args:
            table: Its hash.
            mark: A hash of what emptied it; another one each time.
        """
        self._marks[table] = mark

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self._marks.clear()

    def pack(self) -> Packed:
        """What a later memory begins with: plain bytes, 16 for each row."""
        rows, values = b"".join(self._values), b"".join(self._values.values())
        return _VERSION, rows, values, tuple(self._marks.items())

    def _name(self, table: bytes, row: bytes) -> bytes:
        mark = self._marks.get(table)
        return row if mark is None else short_hash(row + mark)

    def _shrink(self) -> None:
        surplus = len(self._values) - self._limit
        if surplus > 0:
            for name in list(islice(self._values, surplus + self._limit // _FLOCKS)):
                del self._values[name]


def _pieces(packed: bytes) -> list[bytes]:
    return [packed[start : start + WIDTH] for start in range(0, len(packed), WIDTH)]
