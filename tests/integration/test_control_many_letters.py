"""Many dead letters of one sink: memory stays flat, and answers are right."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from connectors.jetstream import api, letter_index
from connectors.jetstream.connection import connect
from connectors.jetstream.consumer import share
from connectors.jetstream.letter_claims import claim_letters
from connectors.jetstream.letters import letter_headers, letter_subject
from connectors.jetstream.spec import DeadLetterSpec, NatsSpec
from connectors.letters import Letter, Reason, State
from control.explorer.deliveries import Fate
from control.explorer.explorer import Explorer
from control.explorer.pages import Ordered
from control.explorer.wanted import Wanted
from control.letters.actions import carry_out
from control.servers.nats import NatsServer, find_nats_server
from tests.integration.control_explorer import FixedSpecs, Writer, row, subject
from tests.integration.streams import until
from tests.servers.require import obtain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connectors.contracts.sink import Share
    from connectors.jetstream.connection import Connection

pytestmark = pytest.mark.servers

MIB = 1024 * 1024
COUNT, STORED = 12_000, 2000
LETTERS = [sequence for sequence in range(2, COUNT + 2) if sequence % 10]
TREE = {
    "sources": {"shop": {"type": "postgres", "dsn": "host=127.0.0.1 port=1 dbname=x"}},
    "sinks": {
        "hook": {
            "type": "webhook",
            "url": "https://127.0.0.1:1/",
            "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
            "topics": ["db.*"],
        }
    },
}


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsSpec]:
    """A stream of 2000 messages; nearly all of it, and what would follow, are letters of `hook`."""
    program = obtain("nats", find_nats_server)
    with NatsServer(program=program, sync_interval="2m") as server:
        spec = NatsSpec(url=(server.url,))
        with closing(Writer(spec, "shop")) as writer:
            changes = [row("shop", number, number) for number in range(STORED)]
            writer.write([(subject("shop", "db.users", change), change) for change in changes])
        found = share(spec, "hook", "CDC_shop", ["db.*"])
        assert found is not None
        claim_letters(spec, DeadLetterSpec(), found)
        with connect(spec) as connection:
            put(connection, found)
        yield spec


def put(connection: Connection, of: Share) -> None:
    """Every tenth message is no letter, every other letter waits behind one."""
    reason = Reason("PermanentError", "webhook.refused", "status 422 " + "x" * 200)
    for sequence in LETTERS:
        state = State.PARKED if sequence % 2 else State.FAILED
        letter = Letter(sequence, "db.users", (sequence,), state, reason)
        original = {"Cdc-Subject": "CDC.shop.db.users.0", "Cdc-Key": f'{{"id":{sequence}}}'}
        head = (
            "NATS/1.0\r\n" + letter_headers(of, letter, original, "2026-01-01T00:00:00Z") + "\r\n"
        )
        place = letter_subject(of.sink, of.stream, of.created, sequence)
        connection.send(f"HPUB {place} {len(head)} {len(head) + 2}\r\n{head}{{}}\r\n".encode())

    def stored() -> bool:
        info = api.stream_info(connection, "DLQ")
        return info is not None and info.state.messages == len(LETTERS) + 1  # with the claim

    until(stored, 60)


@pytest.fixture
def explorer(nats: NatsSpec) -> Iterator[Explorer]:
    with closing(Explorer(nats, FixedSpecs(TREE), {})) as explorer:
        explorer.topics("")
        yield explorer


def test_messages_are_chosen_by_their_fate_in_flat_memory(explorer: Explorer) -> None:
    def found(*fates: Fate, number: int = 1) -> tuple[list[int], int]:
        page = explorer.messages(
            Wanted(), Ordered(), limit=20, preview=10, number=number, sink="hook",
            fates=frozenset(fates),
        ).page  # fmt: skip
        return [each.sequence for each in page.messages], page.total

    expected = {
        Fate.PARKED: [each for each in range(2, STORED + 2) if each % 2],
        Fate.FAILED: [each for each in range(2, STORED + 2) if not each % 2 and each % 10],
        Fate.UNSENT: [each for each in range(2, STORED + 2) if not each % 10],
    }
    tracemalloc.start()
    try:
        for fate in (Fate.PARKED, Fate.FAILED):
            assert found(fate) == (expected[fate][:20], len(expected[fate]))
            assert found(fate, number=3) == (expected[fate][40:60], len(expected[fate]))
        # What is a letter is not unsent, and is not counted with that.
        assert found(Fate.UNSENT) == (expected[Fate.UNSENT][:20], len(expected[Fate.UNSENT]))
        everything = Fate.UNSENT, Fate.SENT
        assert found(*everything)[1] == len(expected[Fate.UNSENT])
        assert found(*everything, Fate.PARKED)[1] == STORED - len(expected[Fate.FAILED])
        assert found(Fate.PARKED, Fate.FAILED)[1] == STORED - STORED // 10
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * MIB


def test_letters_are_discarded_in_flat_memory(nats: NatsSpec) -> None:
    with connect(nats) as connection:
        tracemalloc.start()
        try:
            # No sink of this name is configured, so that no flow has to be asked.
            heads = letter_index.heads(connection, "hook")
            some = (head for head in heads if head.sequence > COUNT // 2)
            done = carry_out(connection, "discard", some, (), 0.1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        late = sum(1 for sequence in LETTERS if sequence > COUNT // 2)
        assert done.total.discarded == late
        # What waits for the answers of a busy server counts, too.
        assert peak < 5 * MIB
        assert sum(1 for _ in letter_index.heads(connection, "hook")) == len(LETTERS) - late
