"""Where the changes of a row lie, free of I/O.

16 bytes a message: 64 bits of the key's hash, and the sequence. A hash may belong to two keys, so
what is found has to be looked at.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left

_WIDTH = 8
_KEY = b"\r\nCdc-Key: "


class KeyIndex:
    """An index of one filter of one stream. Not safe for threads.

    Attributes:
        upto: Up to this sequence everything is in it.
    """

    def __init__(self) -> None:
        self.upto = 0
        self._hashes = bytearray()
        self._sequences = array("Q")

    @property
    def size(self) -> int:
        """What it takes, in bytes."""
        return len(self._hashes) + len(self._sequences) * self._sequences.itemsize

    def add(self, sequence: int, header: bytes) -> None:
        """Take in a message behind all that are known, by its header block."""
        start = header.find(_KEY)
        if start >= 0:
            start += len(_KEY)
            self._hashes += _hashed(header[start : header.find(b"\r\n", start)])
            self._sequences.append(sequence)
        self.upto = sequence

    def forget(self, first: int) -> None:
        """Let go of messages before `first`, which are gone, once they are most of it."""
        gone = bisect_left(self._sequences, first)
        if gone * 2 > len(self._sequences):
            del self._sequences[:gone], self._hashes[: gone * _WIDTH]

    def find(self, key: str) -> list[int]:
        """The sequences of messages whose key may be this, ascending."""
        needle, hashes = _hashed(key.encode("ascii")), self._hashes
        found: list[int] = []
        at = hashes.find(needle)
        while at >= 0:
            if at % _WIDTH == 0:
                found.append(self._sequences[at // _WIDTH])
                at += _WIDTH
            else:  # the end of one and the beginning of the next
                at += 1
            at = hashes.find(needle, at)
        return found


def _hashed(key: bytes) -> bytes:
    # Python's own hash: it lives as long as this process, and so does the index.
    return hash(key).to_bytes(_WIDTH, "little", signed=True)
