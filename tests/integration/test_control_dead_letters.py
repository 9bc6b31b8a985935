"""Dead letters over gRPC and by commands: chosen by what they are, and by what is in them."""

from __future__ import annotations

import json
import random
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from connectors.jetstream.spec import NatsSpec
from connectors.letters import Reason, State
from control.pb.cdc.v1 import cdc_pb2, cdc_pb2_grpc
from control.services.calls import Repetitions, Workers
from control.services.dead_letter_service import DeadLetterService
from tests.integration.control_explorer import (
    FixedSpecs,
    Writer,
    listening,
    put_letters,
    refused,
    row,
    subject,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from connectors.contracts.changes import Change
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers

NOISE = random.Random(5).randbytes(100_000).hex()
# The stream begins with its writer's mark.
CHANGES = {
    number + 1: row("shop", number, number % 7, "cud"[number % 3], NOISE if number == 6 else "")
    for number in range(1, 31)
}
PARKED = {sequence for sequence in CHANGES if sequence % 5 == 0}
Filter = cdc_pb2.DeadLetterFilter


class Served:
    """Thirty letters of the sink `hook`, which no flow holds, and the service."""

    def __init__(self, nats: NatsSpec, address: str, channel: grpc.Channel) -> None:
        self.nats, self.address = nats, address
        self.stub = cdc_pb2_grpc.DeadLetterServiceStub(channel)

    def listed(self, chosen: Filter) -> list[int]:
        request = cdc_pb2.ListDeadLettersRequest(filter=chosen, page_size=4)
        found: list[int] = []
        while True:
            answer = self.stub.ListDeadLetters(request)
            found += [letter.sequence for letter in answer.dead_letters]
            request.page_token = answer.next_page_token
            if not request.page_token:
                assert len(found) == answer.total_size
                return found


@pytest.fixture
def served(nats_factory: NatsFactory) -> Iterator[Served]:
    nats = NatsSpec(url=(nats_factory(max_payload=64 * 1024, sync_interval="2m").url,))
    with closing(Writer(nats, "shop")) as writer:
        writer.write([(subject("shop", "db.users", each), each) for each in CHANGES.values()])
    reason = Reason("PermanentError", "webhook.refused", "status 422")
    states = {each: State.PARKED if each in PARKED else State.FAILED for each in CHANGES}
    put_letters(nats, "hook", "shop", "db.users", reason, states)
    workers = Workers()
    service = DeadLetterService(nats, FixedSpecs({}), workers, Repetitions(nats), patience=0.2)
    with (
        closing(workers),
        listening(service.register) as address,
        grpc.insecure_channel(address) as channel,
    ):
        yield Served(nats, address, channel)


def expected(keep: Callable[[int, Change], bool]) -> list[int]:
    found = [sequence for sequence, change in CHANGES.items() if keep(sequence, change)]
    assert found
    return found


def place(change: Change) -> int:
    return int(subject("shop", "db.users", change).rpartition(".")[2])


def test_letters_are_chosen_by_where_they_lie_and_by_what_is_in_them(served: Served) -> None:
    somewhere = place(CHANGES[3])
    assert served.listed(Filter()) == list(CHANGES)
    assert served.listed(Filter(partition=somewhere)) == expected(
        lambda _, change: place(change) == somewhere
    )
    assert served.listed(Filter(ops=["d"])) == expected(lambda _, change: change.op == "d")
    assert served.listed(Filter(ops=["c", "d"], sink="hook")) == expected(
        lambda _, change: change.op in "cd"
    )
    assert served.listed(Filter(text="user 1")) == expected(
        lambda _, change: b"user 1" in change.envelope
    )
    # Rows in the object store are looked into as well.
    assert served.listed(Filter(text=NOISE[1000:1100])) == [7]
    assert served.listed(
        Filter(text="user", ops=["c"], partition=somewhere, states=[cdc_pb2.LETTER_STATE_FAILED])
    ) == expected(
        lambda at, change: change.op == "c" and place(change) == somewhere and at not in PARKED
    )
    assert served.listed(Filter(text="nowhere")) == []
    assert served.listed(Filter(sink="other", text="user")) == []


def test_letters_are_discarded_by_what_is_in_them(served: Served) -> None:
    chosen = Filter(ops=["u"], text="user 2")
    gone = expected(lambda _, change: change.op == "u" and b"user 2" in change.envelope)
    # No sink of this name is configured: nobody can deliver them.
    answer = served.stub.ReplayDeadLetters(cdc_pb2.ReplayDeadLettersRequest(filter=chosen))
    assert (answer.replayed, answer.refused) == (0, len(gone))
    request = cdc_pb2.DiscardDeadLettersRequest(filter=chosen)
    assert served.stub.DiscardDeadLetters(request).discarded == len(gone)
    assert served.listed(Filter()) == [each for each in CHANGES if each not in gone]


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        (Filter(partition=-1), "filter.partition"),
        (Filter(ops=["c", "x"]), "filter.ops[1]"),
        (Filter(states=[9]), "filter.states[0]"),  # type: ignore[list-item]
        (Filter(sequences=[1, 0]), "filter.sequences[1]"),
        (Filter(topic="a.*.b"), "filter.topic"),
        (Filter(source="a.>"), "filter.source"),
        (Filter(sink="a.>"), "filter.sink"),
        (Filter(last_sequence=-1), "filter.last_sequence"),
        (Filter(start_time=Timestamp(seconds=1 << 50)), "filter.start_time"),
        (Filter(end_time=Timestamp(nanos=-1)), "filter.end_time"),
    ],
)
def test_a_wrong_field_is_named(served: Served, chosen: Filter, field: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        served.stub.ListDeadLetters(cdc_pb2.ListDeadLettersRequest(filter=chosen))
    assert refused(raised.value) == field


@pytest.mark.parametrize("way", ["--server", "$WAXTAP_SERVER", "--config"])
def test_commands_choose_letters_alike(
    served: Served,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    way: str,
) -> None:
    config = tmp_path / "waxtap.yaml"
    config.write_text(
        json.dumps(
            {
                "nats": {"url": list(served.nats.url)},
                "sources": {"shop": {"type": "postgres", "dsn": "host=h"}},
                "sinks": {"w": {"type": "postgres", "dsn": "host=w", "topics": ["db.*"]}},
            }
        )
    )
    monkeypatch.setenv(
        "WAXTAP_SERVER", served.address if way == "$WAXTAP_SERVER" else "127.0.0.1:1"
    )
    where = {"--server": ["--server", served.address], "--config": ["-c", str(config)]}.get(way, [])

    def ids(*options: str) -> list[int]:
        status, text = told(["dlq", "list", "-o", "json", *options, *where], capsys)
        assert status == 0
        return [each["id"] for each in json.loads(text)]

    assert ids("--op", "d", "--op", "c", "--text", "user 1") == expected(
        lambda _, change: change.op in "cd" and b"user 1" in change.envelope
    )
    assert ids("--partition", "0") == expected(lambda _, change: place(change) == 0)
    assert ids("--state", "parked") == sorted(PARKED)
    assert ids("--source", "shop", "--from", "30") == [30, 31]
    assert ids("--source", "store") == []
    assert ids("--since", "2020-01-01T00:00:00", "--to", "3") == [2, 3]
    assert ids("--until", "2020-01-01T00:00:00") == []
    assert told(["dlq", "list", "--op", "x", *where], capsys)[0] == 2
    assert told(["dlq", "list", "--partition", "x", *where], capsys)[0] == 2
    assert told(["dlq", "discard", "--text", "user 3", *where], capsys)[0] == 2  # without --yes
    status, _ = told(["dlq", "discard", "--text", "user 3", "--yes", *where], capsys)
    assert status == 0
    assert ids("--text", "user 3") == []
