"""The REST source against a real HTTP server: what it stores, and what becomes of it."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from connectors.contracts.source import Checkpoint
from connectors.errors import FatalError, GapError, RetryableError
from connectors.rest.compare import Comparison
from connectors.rest.names import parse
from tests.integration.rest_api import ListApi, Polled, told

if TYPE_CHECKING:
    from typing import BinaryIO


pytestmark = pytest.mark.servers


def test_an_outcome_is_told_again_whatever_the_api_says_by_then(
    api: ListApi, polled: Polled
) -> None:
    api.put(*range(2500))
    with polled.reading() as reader:
        polled.next(reader, 1000)
    api.put(*range(2500), name="later")
    with polled.reading() as reader:
        assert polled.next(reader, 1500) == [("c", number) for number in range(1000, 2500)]
        assert polled.next(reader, 2500) == [("u", number) for number in range(2500)]
    assert len({change.position for change in polled.changes}) == 5000


def test_what_is_known_grows_by_little_and_is_rewritten_rarely(
    api: ListApi, polled: Polled
) -> None:
    api.put(*range(2000), text="x" * 50)
    whole = 0
    with polled.reading() as reader:
        polled.next(reader, 2000)
        for round_ in range(12):
            api.put(round_, 500 + round_, text=f"y{round_}")
            polled.next(reader, 2)
            assert polled.checkpoint is not None
            reader.confirm(polled.checkpoint)
            if not round_:
                whole = sum(len(data) for data in polled.state.files.values())
        polled.until(reader, lambda: len(polled.state.files) <= 2)
        assert sum(len(data) for data in polled.state.files.values()) < whole
    api.put(7, text="z")
    with polled.reading() as reader:
        assert polled.next(reader, 1) == [("u", 7)]


def test_what_is_repeated_for_a_memory_ends_at_its_goal(api: ListApi, polled: Polled) -> None:
    api.put(1)
    checkpoints: list[Checkpoint | None] = [None]
    with polled.reading() as reader:
        polled.next(reader, 1)
        for number in (2, 3, 4):
            checkpoints.append(polled.checkpoint)
            api.put(number)
            polled.next(reader, 1)
    polled.goal, stored = checkpoints[3], dict(polled.state.files)
    asked = len(api.requests)
    for begin in range(3):
        polled.checkpoint, polled.changes = checkpoints[begin], []
        with polled.reading() as reader:
            polled.until(reader, lambda: polled.checkpoint == polled.goal)
            assert told(polled.changes) == [("c", number) for number in range(begin + 1, 4)]
    assert (polled.state.files, len(api.requests)) == (stored, asked)
    for name in list(polled.state.files):
        found = parse(name)
        if found and found.number == 2:
            polled.state.remove(name)
    polled.checkpoint = checkpoints[1]
    with pytest.raises(GapError):
        polled.source().open(polled.checkpoint)


def test_a_lost_state_is_a_gap_that_can_be_accepted(api: ListApi, polled: Polled) -> None:
    api.put(1, 2)
    with polled.reading() as reader:
        polled.next(reader, 2)
    polled.state.files.clear()
    with pytest.raises(GapError) as caught:
        polled.source().open(polled.checkpoint)
    token = f"state:{polled.name}@1"
    assert token in caught.value.cure
    polled.accept = [token]
    with polled.reading() as reader:
        assert polled.next(reader, 2) == [("c", 1), ("c", 2)]
    positions = [change.position for change in polled.changes]
    assert positions == sorted(set(positions))
    with polled.reading() as reader:
        api.put(2, name="x")
        assert polled.next(reader, 1) == [("u", 2)]


def test_a_lost_base_is_a_gap_that_can_be_accepted(api: ListApi, polled: Polled) -> None:
    api.put(1, 2)
    with polled.reading() as reader:
        polled.next(reader, 2)
        api.put(1, name="x")
        polled.next(reader, 1)
    (base,) = (name for name in polled.state.files if name.startswith("base-000000000001"))
    polled.state.remove(base)
    with pytest.raises(GapError) as caught:
        polled.source().open(polled.checkpoint)
    polled.accept = [f"state:{polled.name}@2"]
    assert polled.accept[0] in caught.value.cure
    with polled.reading() as reader:
        assert polled.next(reader, 2) == [("c", 1), ("c", 2)]


@pytest.mark.parametrize("error", [OSError(28, "No space left"), sqlite3.OperationalError("full")])
def test_a_full_disk_is_told(
    api: ListApi, polled: Polled, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    api.put(1)

    def full(_comparison: Comparison, _items: object) -> None:
        raise error

    monkeypatch.setattr(Comparison, "add", full)
    with pytest.raises(FatalError) as caught:
        polled.source().open(None)
    assert caught.value.code == "rest.local_files"
    assert "TMPDIR" in caught.value.cure


def test_dropping_a_source_removes_its_state(api: ListApi, polled: Polled) -> None:
    api.put(1)
    with polled.reading() as reader:
        polled.next(reader, 1)
    assert polled.source().drop()
    assert polled.state.files == {}
    assert polled.source().drop() == []


def test_a_store_that_is_away_is_waited_for(
    api: ListApi, polled: Polled, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put(1)
    put, failures = polled.state.put, [3]

    def failing(name: str, data: BinaryIO) -> None:
        if failures[0]:
            failures[0] -= 1
            raise RetryableError("test.away", "no store")
        put(name, data)

    monkeypatch.setattr(polled.state, "put", failing)
    with polled.reading() as reader:
        assert polled.next(reader, 1) == [("c", 1)]
    assert failures == [0]
