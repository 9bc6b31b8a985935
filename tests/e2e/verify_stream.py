"""Whether the stream is the log: every committed change in it, once and in order.

Read and judged without the project's own code.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from tests.e2e.witness import Event, Transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nats.js import JetStreamContext

_PULL = 200
_CONSUMER = "verifier"


class Stored(NamedTuple):
    """A change as it lies in the stream, read without the project's own code.

    Attributes:
        sequence: The stream's sequence.
        subject: Where it lies.
        position: `Cdc-Position`.
        transaction: `Cdc-Tx` without its mark.
        last: Whether `Cdc-Tx` carries the mark of a transaction's last change.
        event: What changed; the op is empty where the envelope lies in the object store.
    """

    sequence: int
    subject: str
    position: str
    transaction: str
    last: bool
    event: Event


def read_stream(url: str, stream: str = "CDC_shop") -> Iterator[Stored]:
    """Every change in the stream, checkpoints left out."""
    with asyncio.Runner() as runner:
        client = runner.run(nats.connect(url))
        try:
            js = client.jetstream()
            state = runner.run(js.stream_info(stream)).state
            subscription = runner.run(_subscribe(js, stream))
            sequence = state.first_seq - 1
            while sequence < state.last_seq:
                for message in runner.run(subscription.fetch(_PULL, timeout=10)):
                    found = message.metadata.sequence.stream
                    assert found > sequence, "the verifier itself reads out of order"
                    sequence = found
                    headers = message.headers or {}
                    if "Cdc-Position" in headers and not message.subject.endswith(".checkpoint"):
                        yield _stored(sequence, message.subject, headers, message.data)
            runner.run(js.delete_consumer(stream, _CONSUMER))
        finally:
            runner.run(client.close())


async def _subscribe(js: JetStreamContext, stream: str) -> JetStreamContext.PullSubscription:
    with suppress(NotFoundError):
        await js.delete_consumer(stream, _CONSUMER)
    await js.add_consumer(
        stream,
        ConsumerConfig(
            name=_CONSUMER,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=60,
        ),
    )
    return await js.pull_subscribe_bind(consumer=_CONSUMER, stream=stream)


def check_stream(
    stored: Iterable[Stored], committed: Iterable[Transaction], *, source: str = "shop"
) -> int:
    """Every committed change lies in the stream exactly once and in order.

    Args:
        stored: The stream's changes.
        committed: The witness's account.
        source: The source's name.

    Returns:
        How many changes were compared.

    Raises:
        AssertionError: A change is missing, surplus or out of order; names the first one.
    """
    previous: Stored | None = None
    number = 0
    for number, (want, got) in enumerate(zip_longest(_flatten(committed), stored), start=1):
        where = f"change {number}"
        assert got is not None, f"{where}: {want} is missing at the end of the stream"
        if previous is not None:
            assert len(got.position) == len(previous.position), f"{where}: another width: {got}"
            assert got.position > previous.position, f"{where}: {got} after {previous}"
            if got.transaction == previous.transaction and got.transaction:
                assert not previous.last, f"{where}: marked as last, but {got} follows {previous}"
        previous = got
        assert want is not None, f"{where}: {got} was never committed"
        xid, last, event = want
        if not got.event.op:
            # too large for a message: of the envelope, only what the headers tell
            event = event._replace(op="", table="", old_key=None)
        assert got.event == event, f"{where}: expected {want}, found {got}"
        assert got.subject.startswith(f"CDC.{source}."), f"{where}: {got}"
        if xid:
            assert got.transaction.split(":")[0] == str(xid), f"{where}: {want} against {got}"
            assert got.last == last, f"{where}: mark of the last change: {want} against {got}"
    return number


def _flatten(committed: Iterable[Transaction]) -> Iterator[tuple[int, bool, Event]]:
    for transaction in committed:
        for event in transaction.events[:-1]:
            yield transaction.xid, False, event
        yield transaction.xid, True, transaction.events[-1]


def _stored(sequence: int, subject: str, headers: dict[str, str], data: bytes) -> Stored:
    transaction, _, mark = headers["Cdc-Tx"].partition(";") if "Cdc-Tx" in headers else ("", "", "")
    key = json.loads(headers["Cdc-Key"]) if headers.get("Cdc-Key") else None
    return Stored(
        sequence,
        subject,
        headers["Cdc-Position"],
        transaction,
        mark == "last",
        _event(data, _text_key(key)),
    )


def _event(data: bytes, key: tuple[tuple[str, str], ...] | None) -> Event:
    try:
        envelope = json.loads(data)
    except ValueError:
        return Event("", "", key)
    op, origin = envelope["op"], envelope["source"]
    if op == "m":
        return Event("m", envelope["message"]["prefix"], None)
    old = None
    if op == "u" and envelope["before"] and key:
        before = {name: envelope["before"].get(name) for name, _ in key}
        if None not in before.values():
            old = _text_key(before)
    table = f"{origin.get('schema') or origin['db']}.{origin['table']}"
    return Event(op, table, key, old if old != key else None)


def _text_key(key: dict[str, object] | None) -> tuple[tuple[str, str], ...] | None:
    if key is None:
        return None
    return tuple(sorted((name, str(value)) for name, value in key.items()))
