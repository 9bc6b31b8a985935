"""The demo's shop as an API: its products, which change, and their comparison with the target's."""

from __future__ import annotations

import json
import random
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, urlsplit

import psycopg

from control.demo.compare import Comparison

if TYPE_CHECKING:
    from types import TracebackType

    from control.demo.progress import Progress

# What the target shows of it tells how far the target has come: the list is in the order of it.
REVISION = "SELECT max(revision) FROM public.products"
TOKEN = "demo"  # noqa: S105 - it guards nothing
_PAGE = 500
_PRODUCTS = 1500
# An API that is asked several times a second: more changes would only be seen together.
_MOST_CHANGES_A_SECOND = 400
_TICK_SECONDS = 0.05
_SHOWN = 5

_Row = dict[str, object]


class RestShop:
    """An API on 127.0.0.1 with a list of products in pages, the last changed one last.

    Args:
        folder: Of the demo, for messages.
    """

    version = "HTTP/1.1"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "api"
        self.log = folder / "api.log"
        self._lock = threading.Lock()
        self._products: dict[str, _Row] = {}
        shop = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # small writes of a head and a body would wait for each other
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_GET(self) -> None:
                shop._answer(self)

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Nothing: the display has the terminal."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A flow that ends hangs up."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Of the list."""
        return f"http://127.0.0.1:{self.port}/products"

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def products(self) -> list[_Row]:
        """The list."""
        with self._lock:
            return list(self._products.values())

    def put(self, product: _Row) -> None:
        """Create or change a product, which is the last of the list then."""
        with self._lock:
            self._products.pop(str(product["sku"]), None)
            self._products[str(product["sku"])] = product

    def remove(self, sku: str) -> None:
        """Delete a product."""
        with self._lock:
            self._products.pop(sku, None)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        allowed = request.headers.get("authorization") == f"Bearer {TOKEN}"
        page = int(parse_qs(urlsplit(request.path).query).get("page", ["1"])[0])
        products = self.products()
        body = json.dumps({"products": products[(page - 1) * _PAGE : page * _PAGE]}).encode()
        request.send_response(200 if allowed else 401)
        request.send_header("content-length", str(len(body) if allowed else 0))
        if len(products) > page * _PAGE:
            request.send_header("link", f'<?page={page + 1}>; rel="next"')
        request.end_headers()
        request.wfile.write(body if allowed else b"")


class RestWorkload:
    """Changes the products.

    Args:
        shop: Whose.
        rate: Changes a second, up to some hundred.
        progress: Told of every change.
        seed: Of what is done.
    """

    def __init__(self, shop: RestShop, rate: int, progress: Progress, seed: int) -> None:
        self._shop, self._progress = shop, progress
        self._count = max(2, round(min(rate, _MOST_CHANGES_A_SECOND) * _TICK_SECONDS))
        self._random = random.Random(seed)  # noqa: S311 - a demo's data
        self._skus: list[str] = []
        self._made = 0
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="workload")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def check(self) -> None:
        """Raise what ended it before its time."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            due = time.monotonic()
            while not self._stop.wait(max(0.0, due - time.monotonic())):
                due += _TICK_SECONDS
                self._change()
        except Exception as error:  # noqa: BLE001 - raised by `check`
            self._error = error

    def _change(self) -> None:
        last = self._progress.begin(self._count)
        self._progress.committing(last)
        # The last one of them puts a product at the list's end, so that the target shows it.
        for revision in range(last - self._count + 1, last):
            if len(self._skus) > _PRODUCTS // 2 and self._random.random() < 0.1:
                self._shop.remove(self._skus.pop(self._random.randrange(len(self._skus))))
            else:
                self._put(revision)
        self._put(last)
        self._progress.committed(last)

    def _put(self, revision: int) -> None:
        random_ = self._random
        if not self._skus or (len(self._skus) < _PRODUCTS and random_.random() < 0.4):
            self._made += 1
            sku = f"sku-{self._made:06}"
            self._skus.append(sku)
        else:
            sku = random_.choice(self._skus)
        self._shop.put(
            {
                "sku": sku,
                "title": random_.choice(["Amber lamp", "Birch table", "Café chair", "茶碗"]),
                "price": random_.randrange(100_000) / 100,
                "stock": random_.randrange(1000),
                "discontinued": random_.random() < 0.1,
                "note": random_.choice([None, "fragile", 'say "hi"']),
                "attributes": {"colours": random_.sample(["red", "green", "blue"], 2)},
                "revision": revision,
            }
        )


def compare(shop: RestShop, target_dsn: str) -> Comparison:
    """Compare every product of the API and of the target."""
    ours = {str(product["sku"]): product for product in shop.products()}
    with psycopg.connect(target_dsn) as target:
        cursor = target.execute("SELECT * FROM public.products")
        names = [column.name for column in cursor.description or ()]
        theirs = {str(row["sku"]): row for row in (_plain(names, each) for each in cursor)}
    found = sorted(sku for sku in ours.keys() | theirs.keys() if ours.get(sku) != theirs.get(sku))
    differences = [
        f"products {sku}: {ours.get(sku, 'missing')} in the source,"
        f" {theirs.get(sku, 'missing')} in the target"
        for sku in found[:_SHOWN]
    ]
    if len(found) > _SHOWN:
        differences.append(f"products: and {len(found) - _SHOWN} more")
    return Comparison(1, len(ours), differences)


def _plain(names: list[str], row: tuple[object, ...]) -> _Row:
    """A row as JSON has it."""
    plain = (float(value) if isinstance(value, Decimal) else value for value in row)
    return dict(zip(names, plain, strict=True))
