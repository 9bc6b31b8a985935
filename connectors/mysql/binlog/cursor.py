"""Reads the integers and strings of MySQL's formats out of an event, piece by piece."""

from __future__ import annotations


class Cursor:
    """A place in a buffer.

    Args:
        data: The buffer.
        position: Where to begin.
        end: Where it ends; reading beyond it raises ValueError.
    """

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self._data = data
        self.position = position
        self.end = end

    @property
    def more(self) -> bool:
        """True before the end."""
        return self.position < self.end

    def take(self, size: int) -> bytes:
        """The next bytes."""
        start, self.position = self.position, self.position + size
        if self.position > self.end:
            raise ValueError("it is too short")
        return self._data[start : self.position]

    def number(self, size: int) -> int:
        """An unsigned integer of so many bytes, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def length(self) -> int:
        """A length-encoded integer (MySQL documentation, "Protocol::LengthEncodedInteger")."""
        first = self.number(1)
        if first < 251:
            return first
        if first == 255 or first == 251:
            raise ValueError("it holds no length where one should be")
        return self.number({252: 2, 253: 3, 254: 8}[first])

    def text(self) -> bytes:
        """A string behind its length-encoded length."""
        return self.take(self.length())

    def varint(self) -> int:
        """An unsigned integer of MySQL's serialization library.

        As many 1 bits as the lowest bits of the first byte hold, up to 8, so many bytes follow.
        """
        first = self.number(1)
        extra = 8
        for count in range(8):
            if not first >> count & 1:
                extra = count
                break
        rest = self.number(extra)
        return rest if extra == 8 else (rest << 8 | first) >> (extra + 1)

    def signed_varint(self) -> int:
        """A signed one: the lowest bit is the sign."""
        value = self.varint()
        return -(value >> 1) - 1 if value & 1 else value >> 1
