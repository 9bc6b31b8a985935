"""What the tests of the explorer share: streams to look into, and a server to ask."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import msgspec
import structlog
from google.rpc.error_details_pb2 import BadRequest
from grpc_status import rpc_status

from connectors.contracts.changes import Change, Column, TableSchema
from connectors.contracts.sink import Claim
from connectors.contracts.source import Checkpoint
from connectors.jetstream.consumer import share
from connectors.jetstream.dead_letters import DeadLetters
from connectors.jetstream.letter_claims import claim_letters
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.spec import DeadLetterSpec
from connectors.jetstream.stream import open_stream, stream_name
from connectors.letters import Letter
from control.cli.app import run
from control.server.assembly import ControlServer
from dataflows.routing import partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pytest

    from connectors.jetstream.spec import NatsSpec
    from connectors.letters import Reason, State

PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Fixed:
    """A configuration that stays as it is (`readers.Registered`)."""

    revision: int = 1
    tree: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class FixedSpecs:
    """Where it is registered (`readers.Specs`)."""

    tree: Mapping[str, object]
    revision: int = 1

    def read(self) -> Fixed:
        return Fixed(self.revision, self.tree)


def row(source: str, number: int, key: int, op: str = "c", text: str = "") -> Change:
    """A change of the table `users`, the `number`-th of its source."""
    columns = (Column("id", "bigint", "number"), Column("name", "text"))
    table = TableSchema(source, "public", "users", columns, ("id",))
    values = {"id": key, "name": text or f"user {number}"}
    envelope = {
        "before": {"id": key} if op == "d" else None,
        "after": None if op == "d" else values,
        "source": {"name": source, "schema": "public", "table": "users"},
        "op": op,
        "ts_ms": 1_700_000_000_000 + number,
        "transaction": {"id": str(number)},
    }
    data = msgspec.json.encode(envelope)
    return Change(op, table, f"{number:020d}", f'{{"id":{key}}}', f"{number}", True, data)


def subject(source: str, topic: str, change: Change) -> str:
    return f"CDC.{source}.{topic}.{partition(change.key, PARTITIONS)}"


@dataclass(slots=True)
class FixedBoard:
    """Which flows stand still."""

    still: set[str] = field(default_factory=set)

    def paused(self, flow: str) -> bool:
        return flow in self.still


def refused(error: grpc.RpcError) -> str:
    """The field that an INVALID_ARGUMENT names."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    (violations,) = [
        violation
        for detail in status.details
        if detail.Is(BadRequest.DESCRIPTOR)
        for violation in [BadRequest.FromString(detail.value)]
    ]
    return str(violations.field_violations[0].field)


class Writer:
    """Writes a source's stream."""

    def __init__(self, nats: NatsSpec, source: str) -> None:
        claim, _ = open_stream(nats, source)
        self.source = source
        self._publisher = Publisher(nats, claim)

    def write(
        self, messages: Sequence[tuple[str, Change]], state: dict[str, str] | None = None
    ) -> None:
        """Store changes with a checkpoint of this state, and return when they are."""
        if messages:
            last = messages[-1][1].position
            self._publisher.publish(messages, Checkpoint(last, state or {}), {})
        self._publisher.flush()

    def close(self) -> None:
        self._publisher.close()


@contextmanager
def listening(register: Callable[[grpc.aio.Server], None]) -> Iterator[str]:
    """A control server in this process with some services; gives its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> ControlServer:
        server = ControlServer("127.0.0.1:0", [register])
        await server.start()
        return server

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(0.2), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextmanager
def serving(register: Callable[[grpc.aio.Server], None]) -> Iterator[grpc.Channel]:
    """As `listening`; gives a channel to it."""
    with listening(register) as address, grpc.insecure_channel(address) as channel:
        yield channel


def told(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run the command line; its exit status, and what it printed."""
    capsys.readouterr()
    try:
        status = run(list(arguments))
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        structlog.reset_defaults()  # a command logs to the stderr of this test
    return status, capsys.readouterr().out


def put_letters(
    nats: NatsSpec, sink: str, source: str, topic: str, reason: Reason, letters: Mapping[int, State]
) -> None:
    """Store letters of a sink, by the sequences of their messages; each waits for a row of its own.

    No flow holds them: the claim is nobody's afterwards.
    """
    found = share(nats, sink, stream_name(source), [topic])
    assert found is not None
    fence = claim_letters(nats, DeadLetterSpec(), found)
    claim = Claim(found, 1, dict.fromkeys(found.subjects, 0), fence=fence)
    with closing(DeadLetters(nats, DeadLetterSpec(), claim, threading.Event())) as store:
        store.load()
        for sequence, state in letters.items():
            store.put([Letter(sequence, topic, (sequence,), state, reason)])
