"""The NATS client protocol as it comes in, free of I/O (`MSG` and `HMSG`; the rest is passed on).

Messages of registered subscriptions go to their callback as plain tuples; every other frame is
handed back whole, for a general client to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

# subject, reply subject, header block (empty: none), payload
Incoming: TypeAlias = "tuple[bytes, bytes, bytes, bytes]"

_H, _M = b"HM"


class FrameReader:
    """Cuts a byte stream into frames.

    Attributes:
        routes: Callbacks by subscription id (decimal digits, as on the wire). A callback must not
            raise.
    """

    def __init__(self) -> None:
        self.routes: dict[bytes, Callable[[Incoming], object]] = {}
        self._pieces: list[bytes] = []
        self._held = 0
        self._needed = 0

    def reset(self) -> None:
        """Forget an incomplete frame: the connection is a new one. Routes stay."""
        self._pieces.clear()
        self._held = self._needed = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes as they came, and return the complete frames of nobody's subscription.

        Raises:
            ValueError: A frame that does not follow the protocol.
        """
        # A frame of many pieces is joined once, when its last piece is there.
        if self._pieces:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
        size = len(data)
        position = 0
        needed = 0
        others: list[bytes] = []
        routes = self.routes
        find = data.find
        while position < size:
            eol = find(b"\r\n", position)
            if eol < 0:
                break
            kind = data[position]
            start = eol + 2
            if kind == _H:
                words = data[position:eol].split()
                if len(words) == 6:
                    _, subject, sid, reply, header_size, total = words
                else:
                    _, subject, sid, header_size, total = words
                    reply = b""
                body = start + int(header_size)
            elif kind == _M:
                words = data[position:eol].split()
                if len(words) == 5:
                    _, subject, sid, reply, total = words
                else:
                    _, subject, sid, total = words
                    reply = b""
                body = start
            else:
                others.append(data[position:start])
                position = start
                continue
            end = start + int(total)
            if end + 2 > size:
                needed = end + 2 - position
                break
            route = routes.get(sid)
            if route is None:
                others.append(data[position : end + 2])
            else:
                route((subject, reply, data[start:body], data[body:end]))
            position = end + 2
        if position < size:
            rest = data[position:] if position else data
            self._pieces.append(rest)
            self._held, self._needed = len(rest), needed
        return others
