"""Requests over one connection, and the answers to them as they come in.

All reply subjects lie under one inbox, so that there is one subscription however many wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from connectors.jetstream.client import StreamClient
    from connectors.jetstream.wire import Incoming


class Reply(NamedTuple):
    """The answer to a request: its header block (empty without one) and its data."""

    header: bytes
    payload: bytes


class Replies:
    """Who waits for which answer. Used inside one event loop only.

    Args:
        client: Sends, and subscribes.
    """

    def __init__(self, client: StreamClient) -> None:
        self._client = client
        self._inbox = ""
        self._waiting: dict[str, asyncio.Future[Incoming]] = {}
        self._requests = 0

    @property
    def opened(self) -> bool:
        """Whether there has been a connection."""
        return bool(self._inbox)

    async def open(self) -> None:
        """Subscribe to the answers; once, with a connection."""
        self._inbox = self._client.new_inbox()
        await self._client.subscribe_raw(f"{self._inbox}.*", self._answered)

    def lose(self) -> None:
        """The connection is lost: what is waited for may never come."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(TimeoutError("connection lost"))

    async def request(self, subject: str, payload: bytes, headers: str, timeout: float) -> Incoming:
        """Send a request and wait for its answer.

        Args:
            subject: Where to.
            payload: The data.
            headers: Lines of `Name: value`, each ended by CR LF.
            timeout: Seconds to wait.

        Raises:
            TimeoutError: It may have been received or not.
        """
        head = f"NATS/1.0\r\n{headers}\r\n".encode() if headers else b""
        sizes = f"{len(head)} {len(head) + len(payload)}" if headers else str(len(payload))
        verb = "HPUB" if headers else "PUB"
        reply, future = self._expect()
        try:
            self._client.send(
                f"{verb} {subject} {reply} {sizes}\r\n".encode() + head + payload + b"\r\n"
            )
            async with asyncio.timeout(timeout):
                return await future
        finally:
            del self._waiting[reply]

    async def exchange(
        self, encode: Callable[[Sequence[str]], bytes], answers: int, timeout: float
    ) -> list[Reply]:
        """Send frames of one's own and wait for all answers.

        Args:
            encode: Makes the frames, which name each of the reply subjects that it is given.
            answers: How many reply subjects.
            timeout: Seconds to wait.

        Raises:
            TimeoutError: Any of them, or none, may have been received.
        """
        if not self._client.is_connected:
            raise TimeoutError("no connection")
        replies = [self._expect() for _ in range(answers)]
        try:
            self._client.send(encode([reply for reply, _ in replies]))
            async with asyncio.timeout(timeout):
                found = await asyncio.gather(*(future for _, future in replies))
        finally:
            for reply, _ in replies:
                del self._waiting[reply]
        return [Reply(header, data) for _, _, header, data in found]

    def _expect(self) -> tuple[str, asyncio.Future[Incoming]]:
        """A fresh reply subject, and what will be the answer; its owner removes it."""
        self._requests += 1
        reply = f"{self._inbox}.{self._requests}"
        future: asyncio.Future[Incoming] = asyncio.get_running_loop().create_future()
        self._waiting[reply] = future
        return reply, future

    def _answered(self, message: Incoming) -> None:
        future = self._waiting.get(message[0].decode())
        if future is not None and not future.done():
            future.set_result(message)
