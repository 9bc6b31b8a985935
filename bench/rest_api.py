"""A list of records in pages, for polling: `python -m bench.rest_api <records> <page>`.

It prints its port. `GET /items?page=<n>` answers with a page and the header `Link`; `GET /polls`
with how often the first page was asked for; `GET /change?count=<n>` changes records, `n` of them.
Pages are made once, so that serving them costs little.
"""

from __future__ import annotations

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit


class _Items:
    def __init__(self, records: int, size: int) -> None:
        self._records, self._size = records, size
        self._versions = [0] * records
        self._pages = [self._page(number) for number in range(-(-records // size))]
        self.polls = 0
        self._changed = 0

    def _page(self, number: int) -> bytes:
        first = number * self._size
        rows = [
            {
                "id": row,
                "name": f"customer {row}",
                "email": f"customer-{row}@example.org",
                "balance": row * 1.25,
                "active": row % 3 == 0,
                "tags": ["amber", "birch"],
                "address": {"city": "Lisbon", "zip": f"{row:06}"},
                "version": self._versions[row],
            }
            for row in range(first, min(first + self._size, self._records))
        ]
        return json.dumps({"data": rows}).encode()

    def page(self, number: int) -> tuple[bytes, str]:
        self.polls += number == 0
        last = number + 1 == len(self._pages)
        return self._pages[number], "" if last else f'<?page={number + 2}>; rel="next"'

    def change(self, count: int) -> None:
        self._changed += 1
        step = self._records // count
        for row in range(self._changed % step, self._records, step):
            self._versions[row] += 1
        self._pages = [self._page(number) for number in range(len(self._pages))]


class _Serving(asyncio.Protocol):
    def __init__(self, items: _Items) -> None:
        self._items = items
        self._transport: asyncio.Transport | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer and self._transport is not None:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            body, link = self._answer(head.split(b" ", 2)[1].decode())
            extra = f"link: {link}\r\n" if link else ""
            headers = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
            self._transport.write(headers.encode() + body)

    def _answer(self, target: str) -> tuple[bytes, str]:
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        if parts.path == "/polls":
            return str(self._items.polls).encode(), ""
        if parts.path == "/change":
            self._items.change(int(query["count"][0]))
            return b"", ""
        return self._items.page(int(query.get("page", ["1"])[0]) - 1)


async def main(records: int, size: int) -> None:
    """Serve until the process is ended."""
    items = _Items(records, size)
    server = await asyncio.get_running_loop().create_server(lambda: _Serving(items), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
