"""Connections to an endpoint: only to addresses that are allowed, and each step in time."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import httpcore

from connectors.errors import ConfigError
from connectors.webhook.addresses import Network, refusal

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence

    # Numeric addresses of a host and a port.
    Resolve = Callable[[str, int], Sequence[str]]

# So much is handed to the kernel at once: the time is looked at in between.
_SLICE = 256 * 1024
# Linux: after so many milliseconds without the peer's acknowledgement a connection is over.
_SILENCE_MS = 60_000


def resolve(host: str, port: int) -> list[str]:
    """The numeric addresses of a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for _, _, _, _, address in found))


class Stream(httpcore.NetworkStream):
    """A connection that gives up at a deadline, and that any thread may break.

    What is written goes out with the next reading: head and body of a small request leave in one
    packet.

    Attributes:
        deadline: Monotonic time after which reading and writing raise a timeout.
    """

    def __init__(self, inner: httpcore.NetworkStream, deadline: float) -> None:
        self._inner = inner
        self._unsent = b""
        self.deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read up to `max_bytes` before the deadline."""
        if self._unsent:
            try:
                self._send()
            except httpcore.WriteError:
                # It may have answered before it hung up.
                self._unsent = b""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the answer takes too long")
        return self._inner.read(max_bytes, left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it, before the deadline, or with the next reading."""
        self._unsent += buffer
        if len(self._unsent) > _SLICE:
            self._send()

    def _send(self) -> None:
        buffer, self._unsent = self._unsent, b""
        for start in range(0, len(buffer), _SLICE):
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise httpcore.WriteTimeout("sending takes too long")
            self._inner.write(buffer[start : start + _SLICE], left)

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> Stream:
        """Go on inside TLS."""
        left = max(self.deadline - time.monotonic(), 0.001)
        return Stream(self._inner.start_tls(ssl_context, server_hostname, left), self.deadline)

    def get_extra_info(self, info: str) -> object:
        """What httpcore asks of a connection."""
        return self._inner.get_extra_info(info)

    def close(self) -> None:
        """Let go of the connection."""
        self._inner.close()

    def hang_up(self) -> None:
        """Break the connection under whoever waits for it in another thread. Never raises."""
        held = self._inner.get_extra_info("socket")
        try:
            with socket.socket(fileno=os.dup(held.fileno())) as shared:
                shared.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it is closed already


class Dialler:
    """Connects to one host and port.

    A name is resolved for each connection, and what it stands for is looked at before the same
    numeric address is connected to: a name cannot mean one thing when it is checked and another
    when it is used.

    Args:
        host: A name or a numeric address.
        port: The TCP port.
        tls: None: none is used.
        allow: As in `addresses.refusal`.
        resolver: Turns the host into addresses.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        allow: bool | Sequence[Network],
        resolver: Resolve = resolve,
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._allow, self._resolve = allow, resolver
        self._backend = httpcore.SyncBackend()

    def dial(self, timeout: float) -> Stream:
        """Connect, within about `timeout` seconds for all of the host's addresses together.

        The time that the resolver takes comes before that.

        Raises:
            ConfigError: `webhook.address`: none of the addresses is allowed.
            httpcore.ConnectError, httpcore.ConnectTimeout: The endpoint does not answer.
        """
        try:
            addresses = self._resolve(self._host, self._port)
        except OSError as error:
            raise httpcore.ConnectError(f"the host's name: {error.strerror or error}") from None
        deadline = time.monotonic() + timeout
        failure: Exception = httpcore.ConnectError("the host's name stands for no address")
        for address in self._allowed(addresses):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                return self._connect(address, deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def _allowed(self, addresses: Iterable[str]) -> list[str]:
        allowed: list[str] = []
        refused: list[str] = []
        for address in addresses:
            if why := refusal(address, self._allow):
                refused.append(why)
            else:
                allowed.append(address)
        if refused and not allowed:
            raise ConfigError(
                "webhook.address",
                f"{self._host} must not be connected to: {', '.join(refused)}",
                where="url",
                cure="correct the URL; an address that is not public must be allowed by "
                "`allow_private: [<network>]`",
            )
        return allowed

    def _connect(self, address: str, deadline: float) -> Stream:
        left = max(deadline - time.monotonic(), 0.001)
        options = [
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_MS),
        ]
        plain = Stream(
            self._backend.connect_tcp(address, self._port, left, socket_options=options), deadline
        )
        if self._tls is None:
            return plain
        try:
            return plain.start_tls(self._tls, server_hostname=self._host)
        except BaseException:
            plain.close()
            raise
