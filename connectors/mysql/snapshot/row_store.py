"""Keeps rows as a server has sent them, until they are given out."""

from __future__ import annotations

import tempfile
import weakref
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Above that, rows lie in a file that has no name, and ends with the process at the latest.
_MOST_IN_MEMORY = 16 * 1024 * 1024


class RowStore:
    """Rows, one behind the other; what lies between them is of no interest.

    Attributes:
        size: Of all rows, in bytes.
    """

    def __init__(self) -> None:
        self.size = 0
        self._starts = array("Q")
        self._file = tempfile.SpooledTemporaryFile(_MOST_IN_MEMORY)  # noqa: SIM115 - closed below
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return len(self._starts)

    def extend(self, data: bytes, starts: Sequence[int]) -> None:
        """Take more rows.

        Args:
            data: All of them; begins with the first one.
            starts: Where each of them begins in it.
        """
        base = self.size
        self._starts.extend([base + start for start in starts])
        self._file.write(data)
        self.size += len(data)

    def drop_last(self) -> None:
        """Forget the last row."""
        self._starts.pop()

    def read(self, start: int, count: int) -> tuple[bytes, list[int]]:
        """Some rows, in bytes that hold all of them, and where each begins there.

        Args:
            start: The first one's number.
            count: How many are wanted, at most.
        """
        starts = self._starts[start : start + count]
        if not starts:
            return b"", []
        base, behind = starts[0], start + count
        end = self._starts[behind] if behind < len(self._starts) else self.size
        self._file.seek(base)
        data = self._file.read(end - base)
        self._file.seek(0, 2)
        return data, [each - base for each in starts]
