"""The message explorer on one large topic: a page, a far page, the changes of a row."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable

import grpc

from bench.errors import FailedError
from bench.fleet import Fleet
from bench.process import MeasuredProcess
from bench.settings import Settings
from bench.waiting import wait_until
from connectors.contracts.changes import Change, Column, TableSchema
from connectors.contracts.source import Checkpoint
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import NatsSpec
from connectors.jetstream.stream import open_stream
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from dataflows.routing import partition

_TOPIC, _PARTITIONS, _KEYS, _PAGE = "db.users", 4, 5, 100
_ROUNDS = 15
_TABLE = TableSchema(
    "bench", "public", "users", (Column("id", "bigint", "number"), Column("note", "text")), ("id",)
)


def run(fleet: Fleet, settings: Settings, tell: Callable[[str], None]) -> list[dict[str, float]]:
    """Fill a topic, beside one tenth as many messages of another, and ask for it.

    Each row has five changes; every question is another page, or another row. Times are those of
    the client, over gRPC.

    Args:
        fleet: For a NATS server.
        settings: Sizes.
        tell: Told what is going on.

    Raises:
        FailedError: An answer is wrong, or the service has ended.
    """
    count = settings.explorer_messages
    with fleet.nats("explorer") as server:
        tell(f"explorer: storing {count:,} messages")
        _fill(NatsSpec(url=(server.url,)), count)
        address = fleet.folder / "explorer.address"
        command = [sys.executable, "-m", "bench.explorer_service", server.url, str(address)]
        log = fleet.folder / "explorer.log"
        with MeasuredProcess("the explorer", command, log=log) as process:

            def started() -> bool:
                process.check()
                return address.exists()

            wait_until(started, what="the service", timeout=settings.timeout_seconds)
            with grpc.insecure_channel(address.read_text()) as channel:
                stub = cdc_pb2_grpc.MessageServiceStub(channel)
                figures = _measure(stub, count, settings, tell)
            figures["rss_explorer_mb"] = process.peak_rss_mb()
            process.stop()
        address.unlink()
    return [figures]


def _measure(
    stub: cdc_pb2_grpc.MessageServiceStub,
    count: int,
    settings: Settings,
    tell: Callable[[str], None],
) -> dict[str, float]:
    chance = random.Random(1)
    pages = count // _PAGE

    def page(number: int) -> None:
        request = cdc_pb2.ListMessagesRequest(
            filter=cdc_pb2.MessageFilter(topic=_TOPIC), limit=_PAGE, page=number
        )
        answer = stub.ListMessages(request)
        if len(answer.messages) != _PAGE or answer.total_size != count:
            raise FailedError(f"page {number} has {len(answer.messages)} of {answer.total_size}")

    def row() -> cdc_pb2.ListMessagesResponse:
        key = f'{{"id":{chance.randrange(count // _KEYS)}}}'
        request = cdc_pb2.ListMessagesRequest(
            filter=cdc_pb2.MessageFilter(topic=_TOPIC, key=key), limit=_PAGE
        )
        return stub.ListMessages(request)

    first = _times(lambda: page(1))
    far = _times(lambda: page(pages // 2 + chance.randrange(-50, 50)))
    tell("explorer: the first question about a row")
    begun = time.monotonic()
    answer = row()
    cold = time.monotonic() - begun

    def indexed() -> bool:
        return row().total_size == _KEYS

    wait_until(indexed, what="index of keys", timeout=settings.timeout_seconds, interval=2.0)
    built = time.monotonic() - begun

    def look() -> None:
        answer = row()
        if len(answer.messages) != _KEYS:
            raise FailedError(f"a row has {len(answer.messages)} changes instead of {_KEYS}")

    known = _times(look)
    if answer.total_size != -1:
        raise FailedError("the first question was answered from an index")
    return {
        "explorer_page_1_ms": first,
        "explorer_page_far_ms": far,
        "explorer_key_ms": known,
        "explorer_key_first_ms": cold * 1e3,
        "explorer_index_s": built,
    }


def _times(work: Callable[[], object]) -> float:
    """The median of several runs, in milliseconds."""
    found: list[float] = []
    for _ in range(_ROUNDS):
        begun = time.monotonic()
        work()
        found.append((time.monotonic() - begun) * 1e3)
    return statistics.median(found)


def _fill(nats: NatsSpec, count: int) -> None:
    claim, _ = open_stream(nats, "bench")
    publisher = Publisher(nats, claim)
    rows = count // _KEYS
    for first in range(0, count, 1000):
        messages: list[tuple[str, Change]] = []
        for number in range(first, min(first + 1000, count)):
            change = _change(number, number % rows)
            place = partition(change.key, _PARTITIONS)
            messages.append((f"CDC.bench.{_TOPIC}.{place}", change))
            if number % 10 == 0:
                messages.append(("CDC.bench.db.orders.0", change))
        publisher.publish(messages, Checkpoint(messages[-1][1].position, {}), {})
    publisher.flush()
    publisher.close()


def _change(number: int, key: int) -> Change:
    """Some 500 bytes, as a table of eight columns makes them."""
    envelope = (
        f'{{"before":null,"after":{{"id":{key},"note":"{number:0300}"}},'
        f'"source":{{"connector":"postgresql","name":"bench","schema":"public","table":"users"}},'
        f'"op":"u","ts_ms":{number},"transaction":{{"id":"{number}"}}}}'
    )
    name = f'{{"id":{key}}}'
    return Change("u", _TABLE, f"{number:033}", name, str(number), True, envelope.encode())
