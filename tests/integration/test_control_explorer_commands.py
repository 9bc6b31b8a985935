"""The commands `topics, messages, tail, offsets, lag, dlq --server` against a service."""

from __future__ import annotations

import json
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import yaml

from connectors.jetstream.spec import NatsSpec
from connectors.letters import Reason, State
from control.explorer.explorer import Explorer
from control.services.calls import Repetitions, Workers
from control.services.dead_letter_service import DeadLetterService
from control.services.message_service import MessageService
from control.services.offset_service import OffsetService
from tests.integration.control_explorer import (
    FixedBoard,
    FixedSpecs,
    Writer,
    listening,
    put_letters,
    row,
    subject,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc

    from tests.servers.nats import NatsFactory
    from tests.servers.postgres import Database

pytestmark = pytest.mark.servers

COUNT = 30


@pytest.fixture
def waxtap(
    nats_factory: NatsFactory,
    database: Database,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Runs a command against a service with one stream and one sink, which has a dead letter."""
    nats = NatsSpec(url=(nats_factory().url,))
    tree = {
        "sources": {"shop": {"type": "postgres", "dsn": database.dsn, "snapshot": "never"}},
        "sinks": {"warehouse": {"type": "postgres", "dsn": database.dsn, "topics": ["db.*"]}},
    }
    specs, board = FixedSpecs(tree), FixedBoard({"deliver/warehouse"})
    workers, repetitions = Workers(), Repetitions(nats)

    def register(server: grpc.aio.Server) -> None:
        MessageService(explorer, workers).register(server)
        OffsetService(explorer, board.paused, workers, repetitions).register(server)
        DeadLetterService(nats, specs, workers, repetitions, patience=0.2).register(server)

    with closing(Writer(nats, "shop")) as writer, closing(Explorer(nats, specs, {})) as explorer:
        changes = [row("shop", number, number) for number in range(1, COUNT + 1)]
        writer.write([(subject("shop", "db.users", each), each) for each in changes])
        reason = Reason("PermanentError", "postgres.constraint", "it is not good")
        put_letters(nats, "warehouse", "shop", "db.users", reason, {5: State.FAILED})
        with listening(register) as address:
            yield lambda *arguments: told([*arguments, "--server", address], capsys)
    workers.close()


def test_topics_and_messages(waxtap: Callable[..., tuple[int, str]]) -> None:
    status, text = waxtap("topics")
    assert status == 0
    assert "db.users" in text
    assert "warehouse" in text
    status, text = waxtap("topics", "app", "-o", "json")
    assert (status, json.loads(text)) == (0, [])
    status, text = waxtap("messages", "--topic", "db.users", "--limit", "7", "-o", "yaml")
    found = yaml.safe_load(text)
    assert (status, len(found)) == (0, 7)
    assert found[0]["position"] == f"{COUNT:020d}"
    assert found[0]["deliveries"] == [{"sink": "warehouse", "state": "DELIVERY_STATE_UNSENT"}]
    status, text = waxtap("messages", "--key", '{"id": 9}', "--order", "first", "-o", "json")
    (only,) = json.loads(text)
    assert only["key"] == '{"id":9}'
    status, text = waxtap("messages", only["name"])
    assert (status, "Cdc-Position: " in text, '"user 9"' in text) == (0, True, True)
    status, text = waxtap("messages", "--sink", "warehouse", "--state", "failed", "-o", "json")
    assert [each["sequence"] for each in json.loads(text)] == ["5"]
    status, text = waxtap("messages", "--limit", "3", "--page", "2", "--order", "oldest")
    assert "warehouse: failed" in text
    assert waxtap("messages", "--key", "9")[0] == 2
    assert waxtap("messages", "--limit", "0")[0] == 2
    assert waxtap("messages", "CDC_shop/1")[0] == 2


def test_offsets_and_lag(waxtap: Callable[..., tuple[int, str]]) -> None:
    status, text = waxtap("offsets", "-o", "json")
    found = json.loads(text)
    assert (status, len(found)) == (0, 4)
    assert sum(int(each["lag_messages"]) for each in found) == COUNT
    status, text = waxtap("offsets")
    assert (status, "REDELIVERED" in text) == (0, True)
    status, text = waxtap("lag")
    assert status == 0
    assert f"{COUNT}" in text
    status, text = waxtap("lag", "-o", "json")
    assert json.loads(text)["sources"][0]["stream"] == "CDC_shop"
    assert waxtap("offsets", "reset", "warehouse", "--to", "end")[0] == 2  # without --yes
    status, text = waxtap("offsets", "reset", "warehouse", "--to", "end", "--yes", "-o", "json")
    assert status == 0
    assert {each["position"] for each in json.loads(text)} == {str(COUNT + 1)}
    assert waxtap("offsets", "reset", "warehouse", "--to", "then", "--yes")[0] == 2


def test_lags_are_watched_without_a_terminal(
    waxtap: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("control.cli.offsets.time", SimpleNamespace(sleep=sleep))
    status, text = waxtap("lag", "--watch")
    assert (status, text.count("UNACKNOWLEDGED")) == (0, 2)
    looks = 0
    status, text = waxtap("lag", "--watch", "-o", "json")
    assert (status, text.count('"sources"')) == (0, 2)


def test_dead_letters_through_the_service(waxtap: Callable[..., tuple[int, str]]) -> None:
    status, text = waxtap("dlq", "list")
    assert (status, "[postgres.constraint] it is not good" in text) == (0, True)
    status, text = waxtap("dlq", "list", "--error", "constraint", "--from", "5", "-o", "json")
    assert [each["id"] for each in json.loads(text)] == [5]
    assert waxtap("dlq", "list", "--from", "6", "-o", "json") == (0, "[]\n")
    status, text = waxtap("dlq", "show", "-o", "yaml")
    assert yaml.safe_load(text)[0]["change"]["op"] == "c"
    assert waxtap("dlq", "replay")[0] == 2  # nothing is chosen
    assert waxtap("dlq", "replay", "--all")[0] == 3  # no flow answers
    assert waxtap("dlq", "discard", "--sink", "warehouse")[0] == 2  # without --yes
