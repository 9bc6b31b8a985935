"""The chain of batches under way, the window of pull requests, and topics."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import ConfigError
from connectors.jetstream.inflight import Inflight
from connectors.jetstream.pull import WINDOW, PullWindow, Status
from connectors.jetstream.topics import filter_subjects
from connectors.subjects import covers


def _chain(stored: int, *sizes: int) -> Inflight:
    chain = Inflight(stored)
    for size in sizes:
        name = chain.next_name()
        chain.add(name, f"Nats-Batch-Id: {name}\r\n".encode(), size)
    return chain


def test_batches_follow_one_another() -> None:
    chain = _chain(10, 5, 1, 3)
    assert [batch.last for batch in chain.batches] == [15, 16, 19]
    assert chain.end == 19
    assert chain.stored == 10


def test_an_answer_confirms_all_before_it() -> None:
    chain = _chain(10, 5, 1, 3)
    assert chain.acknowledge(chain.batches[1].name, 16)
    assert (chain.stored, len(chain)) == (16, 1)


def test_an_answer_with_another_sequence_is_noticed() -> None:
    chain = _chain(10, 5)
    assert not chain.acknowledge(chain.batches[0].name, 16)
    assert (chain.stored, len(chain)) == (10, 1)


@given(st.lists(st.integers(1, 9), max_size=6), st.integers(0, 60))
def test_what_the_stream_holds_is_dropped(sizes: list[int], extra: int) -> None:
    chain = _chain(100, *sizes)
    ends = [100, *(batch.last for batch in chain.batches)]
    assert chain.drop_stored(100 + extra) == (100 + extra in ends)
    assert chain.stored == max(end for end in ends if end <= 100 + extra)
    assert all(batch.last > 100 + extra for batch in chain.batches)


def test_renamed_batches_are_sent_again_under_new_ids() -> None:
    chain = _chain(0, 1, 1)
    sent: list[bytes] = []
    chain.send(sent.append, 5.0, 4)
    before = [batch.name for batch in chain.batches]
    chain.rename()
    chain.send(sent.append, 6.0, 4)
    after = [batch.name for batch in chain.batches]
    assert not set(before) & set(after)
    assert sent == [f"Nats-Batch-Id: {name}\r\n".encode() for name in before + after]
    assert not chain.has(before[0])


def test_no_more_batches_are_sent_than_allowed() -> None:
    chain = _chain(0, 1, 1, 1)
    sent: list[bytes] = []
    chain.send(sent.append, 5.0, 1)
    chain.send(sent.append, 5.0, 1)
    assert len(sent) == 1
    chain.acknowledge(chain.batches[0].name, 1)
    chain.send(sent.append, 5.0, 4)
    assert len(sent) == 3


def _window() -> PullWindow:
    return PullWindow("$JS.API.CONSUMER.MSG.NEXT.S.c", "_INBOX.x", 1_048_576)


def _status(text: str) -> tuple[bytes, bytes, bytes, bytes]:
    return (b"_INBOX.x", b"", f"NATS/1.0 {text}\r\n\r\n".encode(), b"")


def test_a_window_is_asked_for_once() -> None:
    window = _window()
    line, body, _ = window.request().split(b"\r\n")
    assert line.startswith(b"PUB $JS.API.CONSUMER.MSG.NEXT.S.c _INBOX.x ")
    assert json.loads(body)["batch"] == WINDOW
    assert json.loads(body)["max_bytes"] == 4 * 1024 * 1024
    assert window.request() == b""
    window.asked -= 499
    assert window.request() == b""
    window.asked -= 1
    assert json.loads(window.request().split(b"\r\n")[1])["batch"] == 500


def test_a_pull_holds_the_largest_message() -> None:
    window = PullWindow("s", "i", 64 * 1024 * 1024)
    assert json.loads(window.request().split(b"\r\n")[1])["max_bytes"] > 64 * 1024 * 1024


@pytest.mark.parametrize("text", ["408 Request Timeout", "409 Message Size Exceeds MaxBytes"])
def test_an_ended_request_gives_its_rest_back(text: str) -> None:
    window = _window()
    window.request()
    pending = f"{text}\r\nNats-Pending-Messages: 1800\r\nNats-Pending-Bytes: 0"
    assert window.status(_status(pending)) is Status.ALIVE
    assert window.asked == 200


@pytest.mark.parametrize("text", ["409 Consumer Deleted", "503", "404 No Messages"])
def test_other_statuses_lose_the_consumer(text: str) -> None:
    assert _window().status(_status(text)) is Status.LOST


def test_a_heartbeat_changes_nothing() -> None:
    window = _window()
    window.request()
    assert window.status(_status("100 Idle Heartbeat")) is Status.ALIVE
    assert window.asked == WINDOW


@pytest.mark.parametrize(
    ("topics", "filters"),
    [
        (["db.users"], ("CDC.shop.db.users.*", "CDC.shop.dead.db.users.*")),
        (["db.*"], ("CDC.shop.db.>", "CDC.shop.dead.db.>")),
        (["*"], ("CDC.shop.>",)),
        (
            ["db.*", "db.users", "web.hits"],
            (
                "CDC.shop.db.>",
                "CDC.shop.dead.db.>",
                "CDC.shop.dead.web.hits.*",
                "CDC.shop.web.hits.*",
            ),
        ),
        (["db.users", "*"], ("CDC.shop.>",)),
        (
            ["db", "db.users"],
            (
                "CDC.shop.db.*",
                "CDC.shop.db.users.*",
                "CDC.shop.dead.db.*",
                "CDC.shop.dead.db.users.*",
            ),
        ),
        (["db.users", "db.users"], ("CDC.shop.db.users.*", "CDC.shop.dead.db.users.*")),
    ],
)
def test_topics_become_filters(topics: list[str], filters: tuple[str, ...]) -> None:
    assert filter_subjects("shop", topics) == filters


@pytest.mark.parametrize("topic", ["", "db.", ".db", "db.*.x", "db.us*", "a b", "db.>", "**"])
def test_other_topics_are_refused(topic: str) -> None:
    with pytest.raises(ConfigError):
        filter_subjects("shop", [topic])


@pytest.mark.parametrize(
    ("pattern", "subject", "answer"),
    [
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a.*", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "a.*", True),
        ("a.*", "a.>", False),
        ("a.b", "a.*", False),
        ("a.b", "a", False),
    ],
)
def test_patterns_cover(pattern: str, subject: str, answer: bool) -> None:
    assert covers(pattern, subject) is answer
