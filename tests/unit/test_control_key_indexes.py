"""Indexes of keys are built by one thread, shared by their questions, and take bounded memory."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from connectors.errors import RetryableError
from connectors.jetstream.headers_only import Seen
from control.explorer.key_index import KeyIndex
from control.explorer.key_indexes import Covered, KeyIndexes
from tests.integration.streams import until

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = '{"id":1}'


def of(number: int) -> Covered:
    return Covered("CDC_shop", "2026", f"CDC.shop.topic{number}.*")


class Stored:
    """So many messages on each subject, every tenth with the key; builds wait for `open_`."""

    def __init__(self, count: int = 10) -> None:
        self.count = count
        self.reads: list[Covered] = []
        self.running = self.most_running = 0
        self.open_ = threading.Event()
        self.open_.set()

    def __call__(self, covered: Covered, after: int) -> Iterator[Seen]:
        self.reads.append(covered)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        self.open_.wait(10)
        for sequence in range(after + 1, self.count + 1):
            key = KEY if sequence % 10 == 0 else f'{{"id":{sequence + 1}}}'
            yield Seen(sequence, covered.subjects, f"NATS/1.0\r\nCdc-Key: {key}\r\n\r\n".encode())
        self.running -= 1


@pytest.fixture
def stored() -> Stored:
    return Stored()


def ask(indexes: KeyIndexes, number: int, last: int = 10, first: int = 1) -> list[int] | None:
    return indexes.find(of(number), KEY, first, last)


def built(indexes: KeyIndexes, number: int, last: int = 10) -> None:
    until(lambda: ask(indexes, number, last) is not None)


def test_many_questions_start_one_thread_and_share_a_build(stored: Stored) -> None:
    stored.open_.clear()
    before = threading.active_count()
    indexes = KeyIndexes(stored, pause=0.0)
    for _ in range(5):
        for number in range(200):
            assert ask(indexes, number) is None
    assert threading.active_count() - before == 1
    stored.open_.set()
    built(indexes, 0)
    assert stored.most_running == 1
    assert stored.reads.count(of(0)) == 1
    # What did not wait in line is built when it is asked again.
    built(indexes, 199)
    assert ask(indexes, 199) == [10]
    indexes.close()


def test_a_build_leaves_the_first_answer_its_time(stored: Stored) -> None:
    indexes = KeyIndexes(stored, pause=0.3)
    began = time.monotonic()
    built(indexes, 1)
    assert time.monotonic() - began >= 0.3
    indexes.close()
    indexes = KeyIndexes(stored, pause=60.0)
    assert ask(indexes, 1) is None
    indexes.close()  # waits for nothing


def test_what_nobody_asks_is_let_go(stored: Stored) -> None:
    indexes = KeyIndexes(stored, idle=0.1, pause=0.0)
    ask(indexes, 1)
    until(lambda: len(stored.reads) == 1)
    until(lambda: indexes.size == 0)
    indexes.close()


def test_a_build_that_nobody_waits_for_ends() -> None:
    stored = Stored(10_000_000)
    indexes = KeyIndexes(stored, idle=0.1, pause=0.0)
    ask(indexes, 1, 10_000_000)
    until(lambda: len(stored.reads) == 1)
    until(lambda: indexes.size == 0)
    began = time.monotonic()
    indexes.close()
    assert time.monotonic() - began < 1


def test_indexes_of_nothing_are_bounded_as_well() -> None:
    indexes = KeyIndexes(Stored(0), most_bytes=50_000, pause=0.0)
    for number in range(40):
        built(indexes, number)
        assert indexes.size <= 50_000
    indexes.close()


def test_what_was_asked_last_stays_and_what_is_too_large_is_not_kept() -> None:
    stored = Stored(1000)
    indexes = KeyIndexes(stored, most_bytes=60_000, pause=0.0)
    for number in (1, 2):
        built(indexes, number, 1000)
    built(indexes, 1, 1000)
    built(indexes, 3, 1000)  # there is room for two
    assert indexes.size <= 60_000
    assert ask(indexes, 1, 1000) is not None
    assert ask(indexes, 2, 1000) is None
    indexes.close()
    stored = Stored(100_000)
    indexes = KeyIndexes(stored, most_bytes=60_000, pause=0.0)
    for _ in range(3):
        assert ask(indexes, 1, 100_000) is None
        until(lambda: indexes.size < 10_000 and stored.reads == [of(1)])
    indexes.close()


def test_what_an_index_lacks_is_read_once(stored: Stored) -> None:
    indexes = KeyIndexes(stored, pause=0.0)
    built(indexes, 1)
    stored.count = 30
    stored.reads.clear()
    found: list[list[int] | None] = []
    threads = [threading.Thread(target=lambda: found.append(ask(indexes, 1, 30))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[10, 20, 30]] * 8
    assert stored.reads == [of(1)]
    indexes.close()


def test_an_index_whose_reading_failed_is_made_anew(stored: Stored) -> None:
    indexes = KeyIndexes(stored, pause=0.0)
    built(indexes, 1)
    stored.count = 20

    def fails(covered: Covered, after: int) -> Iterator[Seen]:
        raise RetryableError("jetstream.timeout", "it does not answer")

    indexes._headers = fails
    with pytest.raises(RetryableError):
        ask(indexes, 1, 20)
    indexes._headers = stored
    built(indexes, 1, 20)
    assert ask(indexes, 1, 20) == [10, 20]
    indexes.close()


def test_messages_that_are_gone_are_forgotten() -> None:
    index = KeyIndex()
    for sequence in range(1, 101):
        index.add(sequence, f"NATS/1.0\r\nCdc-Key: {KEY}\r\n\r\n".encode())
    index.forget(40)
    assert index.size == 16 * 100
    index.forget(61)
    assert index.size == 16 * 40
    assert index.find(KEY) == list(range(61, 101))
