"""Whether a list moves while its pages are read, free of I/O.

A record that moves to a page that was read already is missed. That something has moved shows where
two readings of the list differ, or where one of them has a record twice.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connectors.rest.records import Item


class Motion:
    """What two readings of a list have said; `begin`, `take` its records, `between`, and again."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """The first reading begins."""
        self._said = blake2b(digest_size=16)
        self._count, self._repeated, self._before = 0, False, b""

    def take(self, items: Sequence[Item]) -> None:
        """Some of the records, in the list's order."""
        self._said.update(b"".join([item.hash for item in items]))
        self._count += len(items)

    def between(self, different: int) -> None:
        """The second reading begins; the first one had so many different records."""
        self._repeated, self._before = self._count > different, self._said.digest()
        self._said = blake2b(digest_size=16)

    @property
    def seen(self) -> bool:
        """Whether the list has moved, behind two readings."""
        return self._repeated or self._said.digest() != self._before
