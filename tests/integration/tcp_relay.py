"""A TCP relay that can be cut while it listens on, lose the answer to a message, or be slow."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class TcpRelay:
    """Forwards connections to a port on 127.0.0.1.

    Args:
        target: The port.
        rate: How many bytes a second the server's answers have on each connection; 0: no limit.

    Attributes:
        port: Where it listens.
        lost: How many answers were lost by `lose_answer`.
    """

    def __init__(self, target: int, *, rate: int = 0) -> None:
        self._target, self._rate = target, rate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lost = 0
        self._pattern, self._times = b"", 0
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._severed: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def cut(self, *, server_notices: bool = True) -> None:
        """Cut every connection; the server's ends may be left hanging, as by a lost network."""
        with self._lock:
            for client, server in self._pairs:
                self._severed.add(server)
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
                if server_notices:
                    with suppress(OSError):
                        server.shutdown(socket.SHUT_RDWR)

    def lose_answer(self, pattern: bytes, times: int = 1) -> None:
        """Hand the next messages that hold `pattern` on, and cut the client before their answer."""
        with self._lock:
            self._pattern, self._times = pattern, times

    def __enter__(self) -> Self:
        accepting = threading.Thread(target=self._accept)
        self._threads.append(accepting)
        accepting.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()
        for pair in self._pairs:
            for each in pair:
                each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except ConnectionRefusedError:  # it is down, and may come back
                    client.close()
                    continue
                with self._lock:
                    self._pairs.append((client, server))
                for run in (self._upstream, self._downstream):
                    thread = threading.Thread(target=run, args=(client, server))
                    self._threads.append(thread)
                    thread.start()

    def _upstream(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                with self._lock:
                    losing = self._times > 0 and self._pattern in data
                    self._times -= losing
                    self.lost += losing
                    if losing:
                        self._severed.add(server)
                server.sendall(data)
                if losing:
                    # The server goes on by itself, and ends when it finds no client.
                    client.shutdown(socket.SHUT_RDWR)
        with self._lock:
            hanging = server in self._severed
        if not hanging:
            with suppress(OSError):
                server.shutdown(socket.SHUT_WR)

    def _downstream(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                with self._lock:
                    severed = server in self._severed
                if severed:
                    break
                if self._rate:
                    time.sleep(len(data) / self._rate)
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
