"""A log of changes that the sinks' suites deliver, and what a target holds after it."""

from __future__ import annotations

import random
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import msgspec
from prometheus_client import REGISTRY

from connectors.contracts.changes import Column, Delivered, TableSchema
from connectors.contracts.sink import Batch, Claim, Share
from tests.integration.streams import Background, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.contract.sink_adapter import SinkAdapter

ITEMS = TableSchema(
    source="shop",
    schema="public",
    name="items",
    columns=(Column("id", "bigint", "number"), Column("value", "text")),
    key=("id",),
)
SUBJECTS = ("CDC.shop.db.items.0", "CDC.shop.db.items.1")
SHARE = Share("warehouse", "CDC_shop", "2026-01-02T03:04:05.678901234Z", SUBJECTS)


def change(sequence: int, op: str, number: int, value: str = "") -> Delivered:
    """A change of `items`; each row's changes stay in one subject, as routing by key does."""
    row = {"id": number, "value": value}
    envelope = {
        "before": {"id": number} if op == "d" else None,
        "after": None if op == "d" else row,
        "source": {"name": "shop", "schema": "public", "table": "items"},
        "op": op,
        "ts_ms": 1_700_000_000_000 + sequence,
        "transaction": {"id": str(sequence)},
    }
    return Delivered(
        sequence=sequence,
        subject=SUBJECTS[number % 2],
        position=f"{sequence:016X}",
        key=f'{{"id":{number}}}',
        table=ITEMS,
        transaction=str(sequence),
        last=True,
        envelope=msgspec.json.encode(envelope),
    )


def model(changes: Iterable[Delivered]) -> dict[int, str]:
    """What a target holds after these changes."""
    rows: dict[int, str] = {}
    for item in changes:
        envelope = msgspec.json.decode(item.envelope)
        if item.key is None:
            rows.clear()
        elif envelope["op"] == "d":
            rows.pop(msgspec.json.decode(item.key)["id"], None)
        else:
            rows[envelope["after"]["id"]] = envelope["after"]["value"]
    return rows


def history(seed: int, length: int, keys: int = 40) -> list[Delivered]:
    """A plausible log: create, update and delete of few keys, sequences with gaps."""
    random_ = random.Random(seed)
    alive: set[int] = set()
    log: list[Delivered] = []
    sequence = 0
    for _ in range(length):
        sequence += random_.choice([1, 1, 1, 2, 7])
        number = random_.randint(1, keys)
        if number not in alive:
            op = random_.choice("ccr")
            alive.add(number)
        elif random_.random() < 0.3:
            op = "d"
            alive.discard(number)
        else:
            op = random_.choice("uuur")
        log.append(change(sequence, op, number, f"v{sequence}"))
    return log


def prefix(log: Sequence[Delivered], offsets: dict[str, int]) -> list[Delivered]:
    return [item for item in log if item.sequence <= offsets[item.subject]]


def pending(log: Sequence[Delivered], offsets: dict[str, int]) -> list[Delivered]:
    return [item for item in log if item.sequence > offsets[item.subject]]


def expect_stored(adapter: SinkAdapter, log: Sequence[Delivered], offsets: dict[str, int]) -> None:
    """The rows are those of the offsets; without transactions they may be later ones of the log."""
    rows = adapter.rows()
    stored = model(prefix(log, offsets))
    if adapter.transactional:
        assert rows == stored
        return
    possible: dict[int, set[str | None]] = {}
    for item in log:
        number = msgspec.json.decode(item.key or "")["id"]
        states = possible.setdefault(number, {stored.get(number)})
        if item.sequence > offsets[item.subject]:
            states.add(model([item]).get(number))
    assert rows.keys() <= possible.keys()
    for number, states in possible.items():
        assert rows.get(number) in states, f"the state of {number} is older than the offset"


def failed_attempts(share: Share = SHARE) -> float:
    """How often this process has tried to deliver something and failed."""
    labels = {"sink": share.sink, "stream": share.stream}
    return REGISTRY.get_sample_value("waxtap_sink_retries_total", labels) or 0.0


@contextmanager
def outage(adapter: SinkAdapter) -> Iterator[None]:
    """The server is away, and comes back once several attempts have failed."""

    def end() -> None:
        try:
            until(lambda: failed_attempts() > before + 2)
        finally:
            adapter.start_server()

    before = failed_attempts()
    adapter.kill_server()
    ending = Background(end)
    try:
        yield
    finally:
        ending.result()


def batches(claim: Claim, log: Sequence[Delivered], size: int) -> list[Batch]:
    cuts = [list(log[start : start + size]) for start in range(0, len(log), size)]
    return [Batch(claim, cut, cut[-1].sequence) for cut in cuts]


def deliver(adapter: SinkAdapter, claim: Claim, log: Sequence[Delivered], size: int = 50) -> None:
    with closing(adapter.sink().open(claim)) as writer:
        for batch in batches(claim, log, size):
            writer.write(batch)
        writer.flush()
