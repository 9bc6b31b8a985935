"""The packets that a server answers a dump command with, cut out of the byte stream.

Format: MySQL documentation, "MySQL Packets" and "COM_BINLOG_DUMP". A packet is a length (3 bytes,
little-endian), a number, and that many bytes; one of 2^24-1 bytes goes on in the next. Its first
byte is 0 before an event, 255 before an error, 254 at the end.
"""

from __future__ import annotations

from typing import NamedTuple

from connectors.errors import FatalError

_HEAD = 4
_LONGEST = 0xFFFFFF
_EVENT, _END, _ERROR = 0x00, 0xFE, 0xFF


class Refusal(NamedTuple):
    """Why the server ended the stream.

    Attributes:
        number: MySQL's error number; 0 when the server just ended it.
        message: Its words.
    """

    number: int
    message: str


class PacketReader:
    """Collects bytes and gives out events.

    Attributes:
        refusal: Set when the server has ended the stream; nothing comes behind it.
    """

    def __init__(self) -> None:
        self.refusal: Refusal | None = None
        self._rest = bytearray()
        self._wanted = _HEAD
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they come; return the events that are complete, header first.

        Raises:
            FatalError: `mysql.malformed_packet`.
        """
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._wanted:
                return []
            data = bytes(rest)
            rest.clear()
        events: list[bytes] = []
        add = events.append
        start, end = 0, len(data)
        while end - start >= _HEAD:
            size = data[start] | data[start + 1] << 8 | data[start + 2] << 16
            stop = start + _HEAD + size
            if stop > end:
                break
            if size and size < _LONGEST and not self._parts and data[start + _HEAD] == _EVENT:
                add(data[start + _HEAD + 1 : stop])
            else:
                self._odd(data[start + _HEAD : stop], events)
            start = stop
        left = end - start
        if left:
            rest += data[start:]
        self._wanted = _HEAD
        if left >= _HEAD:
            self._wanted += data[start] | data[start + 1] << 8 | data[start + 2] << 16
        return events

    def _odd(self, payload: bytes, events: list[bytes]) -> None:
        """Take a piece of a long packet, or one that holds no event."""
        self._parts.append(payload)
        if len(payload) == _LONGEST:
            return
        packet = payload if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        kind = packet[0] if packet else -1
        if kind == _EVENT:
            events.append(packet[1:])
        elif kind == _ERROR and len(packet) >= 3:
            # a number, then `#` and five characters of SQLSTATE, then the message
            text = packet[9:] if packet[3:4] == b"#" else packet[3:]
            number = int.from_bytes(packet[1:3], "little")
            self.refusal = Refusal(number, text.decode(errors="replace"))
        elif kind == _END:
            self.refusal = Refusal(0, "the server has ended the stream")
        else:
            raise FatalError(
                "mysql.malformed_packet",
                f"a packet of {len(packet)} bytes that begins with {packet[:1]!r}",
                cure="check the network path to the server",
            )
