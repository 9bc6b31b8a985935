"""An HTTP endpoint on 127.0.0.1 that does to each request what its test says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Self

from control.servers.ports import free_port

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

# Closing with this option set sends RST instead of FIN.
_RESET = struct.pack("ii", 1, 0)


class Request(NamedTuple):
    """A request as it came in; names of headers in small letters."""

    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What is done about a request.

    Attributes:
        status: Of the answer.
        headers: Of the answer, besides the body's length.
        body: Of the answer.
        after: Seconds until it is sent.
        raw: Sent instead of an answer, byte by byte as it is.
        reset: Then the connection is broken with RST.
        close: Then the connection is closed.
    """

    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    after: float = 0.0
    raw: bytes | None = None
    reset: bool = False
    close: bool = False

    @property
    def encoded(self) -> bytes:
        if self.raw is not None:
            return self.raw
        lines = [f"HTTP/1.1 {self.status} Whatever", f"content-length: {len(self.body)}"]
        if self.status == 204:
            lines.pop()
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


Answer = Callable[[Request], Reply]


class Receiver:
    """A server in a thread of its own; it may be killed and started again, on the same port.

    Args:
        answer: Called in that thread with each request, one after the other.
        tls: None: plain HTTP.

    Attributes:
        answer: May be exchanged at any time.
        accepted: How many connections there have been.
    """

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.accepted = 0
        self.port = free_port()
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="receiver")
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()
        self._thread.start()
        self.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/hook?token=s3cret-word"

    def start(self) -> None:
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)

    def kill(self) -> None:
        """End every connection with RST and listen no more."""
        asyncio.run_coroutine_threadsafe(self._kill(), self._loop).result(30)

    def cut(self) -> None:
        """Break the connections that there are."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(30)

    def close(self) -> None:
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _start(self) -> None:
        self._server = await self._loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self.port, ssl=self._tls
        )

    async def _kill(self) -> None:
        if self._server is not None:
            # A connection that is being accepted when the server closes would stay open for ever.
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
            await self._accepted()
            self._server.close()
            self._server = None
        await self._cut()

    async def _accepted(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)

    async def _cut(self) -> None:
        await self._accepted()
        ending = list(self._open)
        for connection in ending:
            connection.reset()
        while self._open.intersection(ending):
            await asyncio.sleep(0.001)

    def opened(self, connection: _Connection) -> None:
        self.accepted += 1
        self._open.add(connection)

    def closed(self, connection: _Connection) -> None:
        self._open.discard(connection)


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._receiver.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.closed(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (request := self._request()) is not None:
            reply = self._receiver.answer(request)
            if reply.after:
                asyncio.get_running_loop().call_later(reply.after, self._send, reply)
            else:
                self._send(reply)

    def reset(self) -> None:
        if self._transport is not None:
            held: socket.socket = self._transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()

    def _send(self, reply: Reply) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(reply.encoded)
        if reply.reset:
            self.reset()
        elif reply.close:
            self._transport.close()

    def _request(self) -> Request | None:
        head, ended, rest = self._buffer.partition(b"\r\n\r\n")
        if not ended:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        length = int(headers.get("content-length", "0"))
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        return Request(first.split(" ")[1], headers, rest[:length])
