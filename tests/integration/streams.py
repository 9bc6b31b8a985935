"""What the JetStream tests share: changes to store, and a look at what is stored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from connectors.contracts.changes import Change, Column, TableSchema
from connectors.contracts.sink import Claim
from connectors.contracts.source import Checkpoint
from connectors.jetstream import api
from connectors.jetstream.connection import connect
from connectors.jetstream.consumer import Consumer, share
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import NatsSpec
from connectors.jetstream.stored import parse_headers
from connectors.jetstream.stream import open_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from connectors.contracts.changes import Delivered
    from control.servers.nats import NatsServer
    from tests.servers.nats import NatsFactory

TABLE = TableSchema("shop", "public", "users", (Column("id", "bigint", "number"),), ("id",))
SUBJECT = "CDC.shop.db.users.0"
PATIENCE = 30.0
# Opens a consumer with a claim, and what is accepted.
Open = Callable[..., Consumer]


def position(number: int) -> str:
    return f"{number:020d}"


def change(number: int, payload: bytes = b"{}") -> Change:
    return Change("c", TABLE, position(number), f'{{"id":{number}}}', f"{number}", True, payload)


def changes(
    first: int, count: int, payload: bytes = b"{}", subject: str = SUBJECT
) -> list[tuple[str, Change]]:
    return [(subject, change(number, payload)) for number in range(first, first + count)]


def publish(
    publisher: Publisher, first: int, count: int, payload: bytes = b"{}", subject: str = SUBJECT
) -> None:
    """Publish changes with a checkpoint that names their end."""
    end = first + count - 1
    publisher.publish(
        changes(first, count, payload, subject),
        Checkpoint(position(end), {"lsn": str(end)}),
        {"lsn": str(first - 1)},
    )


def fill(publisher: Publisher, first: int, count: int, subject: str = SUBJECT) -> None:
    """Publish changes, and wait until they are stored."""
    publish(publisher, first, count, subject=subject)
    publisher.flush()


def stored(nats: NatsSpec, stream: str = "CDC_shop") -> Iterator[api.StoredMessage]:
    """Every message of a stream, in order."""
    with connect(nats) as connection:
        info = api.stream_info(connection, stream)
        assert info is not None
        for sequence in range(info.state.first_seq, info.state.last_seq + 1):
            message = api.message(connection, stream, sequence)
            if message is not None:
                yield message


def stored_positions(nats: NatsSpec, stream: str = "CDC_shop") -> list[str]:
    """The positions of the changes in a stream, in order."""
    found = (parse_headers(message.hdrs) for message in stored(nats, stream))
    return [headers.position for headers in found if headers is not None]


def positions(first: int, count: int) -> list[str]:
    return [position(number) for number in range(first, first + count)]


def claim(nats: NatsSpec, topics: Sequence[str] = ("*",), offset: int = 0, epoch: int = 1) -> Claim:
    """The claim of a sink whose target holds everything up to `offset`."""
    found = share(nats, "warehouse", "CDC_shop", topics)
    assert found is not None
    return Claim(found, epoch, dict.fromkeys(found.subjects, offset))


def read(consumer: Consumer, count: int) -> list[Delivered]:
    """The next `count` changes, confirmed as they come."""
    received: list[Delivered] = []

    def enough() -> bool:
        batch = consumer.read()
        if batch is not None:
            received.extend(batch.changes)
            consumer.confirm(batch.upto)
        return len(received) >= count

    until(enough)
    return received


def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        pause.wait(0.002)


class Background:
    """Runs a function in a thread of its own; `result` gives what it returned or raised."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001 - handed over to the test
            self._error = error


@pytest.fixture
def mortal_nats(nats_factory: NatsFactory) -> NatsServer:
    """A server of one test, which may kill it."""
    return nats_factory()


@pytest.fixture
def nats(mortal_nats: NatsServer) -> NatsSpec:
    return NatsSpec(url=(mortal_nats.url,))


@pytest.fixture
def publisher(nats: NatsSpec) -> Iterator[Publisher]:
    publisher = Publisher(nats, open_stream(nats, "shop")[0])
    yield publisher
    publisher.close()


@pytest.fixture
def consume(nats: NatsSpec) -> Iterator[Open]:
    made: list[Consumer] = []

    def make(right: Claim, *accept: str) -> Consumer:
        made.append(Consumer(nats, right, accept))
        return made[-1]

    yield make
    for consumer in made:
        consumer.close()
