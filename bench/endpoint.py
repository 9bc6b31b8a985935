"""An HTTP endpoint that takes everything and counts it: `python -m bench.endpoint`.

It prints its port. `GET /` answers with the number of requests and of events so far.
"""

from __future__ import annotations

import asyncio

_TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"


class _Counting(asyncio.Protocol):
    requests = 0
    events = 0

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._take():
            pass

    def _take(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._transport is None:
            return False
        head = bytes(self._buffer[:end]).lower()
        if head.startswith(b"get "):
            del self._buffer[: end + 4]
            counted = b"%d %d" % (_Counting.requests, _Counting.events)
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(counted), counted)
            )
            return True
        start = head.index(b"content-length:") + len(b"content-length:")
        size = int(head[start:].split(b"\r\n", 1)[0])
        whole = end + 4 + size
        if len(self._buffer) < whole:
            return False
        _Counting.requests += 1
        _Counting.events += self._buffer.count(b'{"id":"msg_', end, whole)
        del self._buffer[:whole]
        self._transport.write(_TAKEN)
        return True


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(_Counting, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
