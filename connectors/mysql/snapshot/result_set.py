"""The rows that a server answers a query with, cut out of the byte stream, free of I/O.

Format: MySQL documentation, "Text Resultset": a packet with the number of columns, one for each
column, an end mark, one packet a row, another end mark. A row is its values one after the other,
each behind its length (`Protocol::LengthEncodedString`); a NULL is the byte 251. Packets are as in
`binlog.packets`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.errors import FatalError
from connectors.mysql.binlog.packets import Refusal

if TYPE_CHECKING:
    from connectors.mysql.snapshot.row_store import RowStore

_HEAD = 4
_LONGEST = 0xFFFFFF
_OK, _FILE, _END, _ERROR = 0x00, 0xFB, 0xFE, 0xFF
# An end mark is shorter than this; a row that begins with a very long value is not.
_END_SIZE = 9
NULL = 251


class ResultSet:
    """Takes bytes as they come, and puts rows into a store.

    Attributes:
        done: True behind the last row, or the refusal.
        refusal: Why the server did not answer, or broke off.

    Args:
        store: Takes the rows.
    """

    def __init__(self, store: RowStore) -> None:
        self.done = False
        self.refusal: Refusal | None = None
        self._store = store
        self._rest = bytearray()
        self._wanted = _HEAD
        self._parts: list[bytes] = []
        # How many packets precede the rows; None: that is not known yet.
        self._before: int | None = None

    def feed(self, data: bytes) -> None:
        """Take more.

        Raises:
            FatalError: `mysql.malformed_packet`: it is no result set.
        """
        if rest := self._rest:
            rest += data
            if len(rest) < self._wanted:
                return
            data = bytes(rest)
            rest.clear()
        end, at, first = len(data), 0, -1
        starts: list[int] = []
        while end - at >= _HEAD and not self.done:
            start = at + _HEAD
            stop = start + (data[at] | data[at + 1] << 8 | data[at + 2] << 16)
            if stop > end:
                break
            short = stop - start < _LONGEST and not self._parts
            if self._before == 0 and short and data[start] < _END:
                if first < 0:
                    first = start
                starts.append(start - first)
                at = stop
                continue
            if starts:
                self._store.extend(data[first:at], starts)
                starts, first = [], -1
            self._other(data[start:stop])
            at = stop
        if starts:
            self._store.extend(data[first:at], starts)
        rest += data[at:]
        self._wanted = _HEAD
        if end - at >= _HEAD:
            self._wanted += data[at] | data[at + 1] << 8 | data[at + 2] << 16

    def _other(self, piece: bytes) -> None:
        """Take a packet that is no short row, or a piece of a long one."""
        self._parts.append(piece)
        if len(piece) == _LONGEST:
            return
        packet = piece if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        kind = packet[0] if packet else _FILE
        if kind == _ERROR and len(packet) >= 3:
            # a number, then `#` and five characters of SQLSTATE, then the message
            text = packet[9:] if packet[3:4] == b"#" else packet[3:]
            number = int.from_bytes(packet[1:3], "little")
            self.refusal = Refusal(number, text.decode(errors="replace"))
            self.done = True
        elif self._before is None:
            if kind in (_OK, _FILE, _END):
                raise _malformed(packet)
            # the columns' definitions and an end mark
            columns = kind if kind < NULL else int.from_bytes(packet[1:3], "little")
            self._before = columns + 1
        elif self._before:
            self._before -= 1
        elif kind == _END and len(packet) < _END_SIZE:
            self.done = True
        else:
            self._store.extend(packet, [0])


def _malformed(packet: bytes) -> FatalError:
    return FatalError(
        "mysql.malformed_packet",
        f"a packet of {len(packet)} bytes that begins with {packet[:1]!r}, instead of rows",
        cure="check the network path to the server",
    )
