"""Sends signed requests over many connections: `python -m bench.sender PORT COUNT CONNECTIONS`.

All requests are made beforehand. Prints one JSON object: requests a second and latencies, from the
moment a request is handed to the kernel to its answer.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator
from itertools import count
from typing import cast

import uvloop

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - of the benchmark alone
_STORED = b"HTTP/1.1 202 "


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], latencies: list[float]) -> None:
        self._requests, self._latencies = requests, latencies
        self._transport: asyncio.Transport | None = None
        self._sent = 0.0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none of asyncio's class.
        self._transport = cast("asyncio.Transport", transport)

    def begin(self) -> None:
        """Send the next request, if there is one."""
        assert self._transport is not None  # noqa: S101 - for the type checker
        request = next(self._requests, None)
        if request is None:
            self._transport.close()
            self.over.set_result(None)
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        # An answer of this endpoint has no body and comes in one piece.
        if not data.startswith(_STORED) or not data.endswith(b"\r\n\r\n"):
            self.over.set_exception(RuntimeError(data.decode(errors="replace")))
            return
        self._latencies.append(time.perf_counter() - self._sent)
        self.begin()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(exc or RuntimeError("hung up"))


def requests(amount: int) -> Iterator[bytes]:
    """Signed requests with bodies of about 450 bytes."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    now = int(time.time())
    for number in range(1, amount + 1):
        body = json.dumps(
            {
                "type": "order.updated",
                "data": {
                    "id": number,
                    "customer": {"id": number % 977, "name": "Ada Lovelace", "country": "GB"},
                    "total": 1234.56,
                    "currency": "EUR",
                    "paid": number % 2 == 0,
                    "note": "please ring twice " * 12,
                },
            }
        ).encode()
        signed = b"msg_%d.%d.%b" % (number, now, body)
        digest = base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
        yield (
            b"POST /hooks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"webhook-id: msg_%d\r\nwebhook-timestamp: %d\r\nwebhook-signature: v1,%b\r\n"
            b"content-length: %d\r\n\r\n%b"
        ) % (number, now, digest, len(body), body)


async def send(ports: list[int], amount: int, connections: int) -> dict[str, float]:
    """Send everything, the connections spread over the ports."""
    made = iter(list(requests(amount)))
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    opened = []
    for _, port in zip(range(connections), (ports[n % len(ports)] for n in count()), strict=False):
        _, protocol = await loop.create_connection(
            lambda: _Connection(made, latencies), "127.0.0.1", port
        )
        opened.append(protocol)
    print("ready", flush=True)
    begun = time.perf_counter()
    for protocol in opened:
        protocol.begin()
    await asyncio.gather(*(protocol.over for protocol in opened))
    seconds = time.perf_counter() - begun
    latencies.sort()
    return {
        "per_s": amount / seconds,
        "p50_ms": latencies[len(latencies) // 2] * 1000,
        "p99_ms": latencies[len(latencies) * 99 // 100] * 1000,
    }


def main(arguments: list[str]) -> None:
    """Send what the command line says."""
    ports, amount, connections = arguments
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        figures = runner.run(
            send([int(p) for p in ports.split(",")], int(amount), int(connections))
        )
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
