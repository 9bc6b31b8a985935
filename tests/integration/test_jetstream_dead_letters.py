"""The stream of dead letters on a real server: who may store what, and what if it is full."""

from __future__ import annotations

import threading
from random import Random
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from connectors.contracts.sink import Claim
from connectors.contracts.source import Checkpoint
from connectors.errors import FencedError, GapError, RetryableError
from connectors.jetstream import api, letter_index
from connectors.jetstream.connection import connect
from connectors.jetstream.consumer import share
from connectors.jetstream.dead_letters import DeadLetters
from connectors.jetstream.letter_claims import claim_letters, holds_letters
from connectors.jetstream.publisher import Publisher
from connectors.jetstream.requests import Asking, Requests, finish
from connectors.jetstream.spec import DeadLetterSpec, NatsSpec
from connectors.jetstream.stream import open_stream
from connectors.letters import Asked, Letter, LetterAnswer, LetterRequest, Reason, State
from tests.integration.streams import SUBJECT, TABLE, Background, change, position, publish, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from connectors.jetstream.connection import Connection
    from tests.servers.nats import NatsFactory

pytestmark = pytest.mark.servers

REASON = Reason("PermanentError", "model.refused", "it is – ungültig\nfor good")
SPEC = DeadLetterSpec()


@pytest.fixture
def publisher(nats: NatsSpec) -> Iterator[Publisher]:
    publisher = Publisher(nats, open_stream(nats, "shop")[0])
    publish(publisher, 1, 5)
    publisher.flush()
    yield publisher
    publisher.close()


def claim(nats: NatsSpec, spec: DeadLetterSpec = SPEC) -> Claim:
    """Claim letters; the target's own claim matters to nobody here."""
    found = share(nats, "warehouse", "CDC_shop", ["*"])
    assert found is not None
    fence = claim_letters(nats, spec, found)
    return Claim(found, 1, dict.fromkeys(found.subjects, 0), fence=fence)


@pytest.fixture
def opened(nats: NatsSpec, publisher: Publisher) -> Iterator[DeadLetters]:
    store = DeadLetters(nats, SPEC, claim(nats), threading.Event())
    yield store
    store.close()


def letter(sequence: int, *rows: int, state: State = State.FAILED) -> Letter:
    return Letter(sequence, "db.users", rows, state, REASON)


def test_a_letter_is_a_copy_of_its_message(nats: NatsSpec, opened: DeadLetters) -> None:
    opened.put([letter(3, 7, 8), letter(4, state=State.SKIPPED)])
    opened.put([letter(3, 7, 8)])
    assert list(opened.load().letters) == [(3, "db.users", (7, 8)), (4, "db.users", ())]
    first, missing = opened.get([3, 5])
    assert missing is None
    assert first is not None
    assert (first.sequence, first.subject, first.key) == (3, SUBJECT, '{"id":2}')
    assert (first.position, first.table, first.envelope) == (position(2), TABLE, b"{}")

    opened.failed_again(3, Reason("PermanentError", "model.still", "no"))
    with connect(nats) as connection:
        heads = list(letter_index.heads(connection, "warehouse"))
        assert [(head.sequence, head.state, head.attempts) for head in heads] == [
            (4, State.SKIPPED, 1),
            (3, State.FAILED, 2),
        ]
        assert heads[1].reason == ("PermanentError", "model.still", "no")
        assert heads[0].reason.message == "it is – ungültig for good"
        stored = api.last_message(connection, "DLQ", "DLQ.warehouse.CDC_shop.>")
        assert stored is not None
        assert b"Cdc-Checkpoint" not in stored.hdrs
        assert list(letter_index.heads(connection, "other")) == []
    opened.delete([3, 4, 99])
    assert list(opened.load().letters) == []


def test_a_letter_that_was_replaced_and_deleted_stays_away_when_the_server_is_killed(
    nats_factory: NatsFactory,
) -> None:
    server = nats_factory()
    nats = NatsSpec(url=(server.url,))
    publisher = Publisher(nats, open_stream(nats, "shop")[0])
    publish(publisher, 1, 5)
    publisher.flush()
    publisher.close()
    for _ in range(3):
        held = claim(nats)
    store = DeadLetters(nats, SPEC, held, threading.Event())
    store.put([letter(number, 1) for number in range(2, 6)])
    store.mark("db.users", 3)
    store.mark("db.users", 4)
    store.put([letter(3, 1)])
    store.failed_again(4, REASON)
    with connect(nats) as connection:
        info = api.stream_info(connection, "DLQ")
        assert info is not None
        # Four letters, a mark, and the claim: nothing has an older copy.
        assert info.state.messages == 6
    store.delete([3, 4, 5])
    server.kill()
    server.start()
    store.check()
    found = store.load()
    assert [sequence for sequence, _, _ in found.letters] == [2]
    assert found.truncated == {"db.users": 4}
    store.close()


def test_of_two_copies_of_a_letter_the_last_one_counts(nats: NatsSpec, opened: DeadLetters) -> None:
    """As a flow leaves them that was killed before it deleted the older one."""
    opened.put([letter(3, 7)])
    with connect(nats) as connection:
        stored = api.last_message(connection, "DLQ", "DLQ.warehouse.CDC_shop.*.3")
        assert stored is not None
        headers = stored.hdrs.decode().split("\r\n", 1)[1].strip() + "\r\nCdc-Attempts: 2\r\n"
        connection.request(stored.subject, stored.data, headers=headers)
    again = DeadLetters(nats, SPEC, claim(nats), threading.Event())
    assert [sequence for sequence, _, _ in again.load().letters] == [3]
    again.put([letter(3, 7)])
    again.delete([3])
    assert list(again.load().letters) == []
    again.close()


def test_a_claim_of_a_stream_that_was_deleted_is_none_of_the_one_made_again(
    nats: NatsSpec, publisher: Publisher
) -> None:
    older = claim(nats)
    with connect(nats) as connection:
        api.call(connection, "STREAM.DELETE.DLQ", None, dict)
    newer = claim(nats)
    assert newer.fence > older.fence
    assert not holds_letters(nats, older.share, older.fence)
    old = DeadLetters(nats, SPEC, older, threading.Event())
    with pytest.raises(FencedError):
        old.put([letter(3, 1)])
    old.close()


def test_letters_of_an_older_flow_are_refused(nats: NatsSpec, publisher: Publisher) -> None:
    older, newer = claim(nats), claim(nats)
    assert not holds_letters(nats, older.share, older.fence)
    assert holds_letters(nats, newer.share, newer.fence)
    old = DeadLetters(nats, SPEC, older, threading.Event())
    new = DeadLetters(nats, SPEC, newer, threading.Event())
    new.put([letter(3, 1)])
    attempts: list[Callable[[], object]] = [
        lambda: old.put([letter(4, 1)]),
        lambda: old.mark("db.users", 4),
        lambda: old.failed_again(3, REASON),
        old.check,
    ]
    for attempt in attempts:
        with pytest.raises(FencedError):
            attempt()
    new.check()
    assert [sequence for sequence, _, _ in new.load().letters] == [3]
    old.close()
    new.close()


def test_letters_of_an_earlier_stream_are_none_of_this_one(
    nats: NatsSpec, opened: DeadLetters, publisher: Publisher
) -> None:
    opened.put([letter(3, 1)])
    opened.mark("db.users", 4)
    right = claim(nats)
    made_again = replace(right, share=replace(right.share, created="2030-01-01T00:00:00Z"))
    store = DeadLetters(nats, SPEC, made_again, threading.Event())
    found = store.load()
    assert (list(found.letters), found.truncated) == ([], {})
    store.close()


def test_what_a_truncated_stream_has_lost_is_no_letter_any_more(
    nats: NatsSpec, opened: DeadLetters
) -> None:
    opened.put([letter(2, 1), letter(5, 1)])
    opened.mark("db.users", 4)
    right = claim(nats)
    store = DeadLetters(
        nats, SPEC, replace(right, share=replace(right.share, end=3)), threading.Event()
    )
    with capture_logs():
        found = store.load()
    assert [sequence for sequence, _, _ in found.letters] == [2]
    assert found.truncated == {"db.users": 4}
    assert [sequence for sequence, _, _ in store.load().letters] == [2]
    store.close()


@pytest.mark.parametrize("made_again", [False, True])
def test_a_stream_that_was_deleted_is_told_and_not_waited_for(
    nats: NatsSpec, opened: DeadLetters, *, made_again: bool
) -> None:
    opened.load()
    opened.put([letter(3, 1)])
    with connect(nats) as connection:
        api.call(connection, "STREAM.DELETE.DLQ", None, dict)
    other = share(nats, "other", "CDC_shop", ["*"])
    assert other is not None
    if made_again:
        claim_letters(nats, SPEC, other)
    attempts: list[Callable[[], object]] = [
        lambda: opened.put([letter(4, 1)]),
        lambda: opened.mark("db.users", 4),
        opened.check,
    ]
    if not made_again:
        attempts += [lambda: opened.get([3]), lambda: opened.delete([3]), opened.load]
    for attempt in attempts:
        with pytest.raises(GapError) as caught:
            attempt()
        assert caught.value.code == "jetstream.letters_gone"


def test_a_message_that_has_expired_cannot_become_a_letter(
    nats: NatsSpec, opened: DeadLetters
) -> None:
    with connect(nats) as connection:
        api.call(connection, "STREAM.PURGE.CDC_shop", {"seq": 4}, api.PubAck)
    with pytest.raises(GapError, match="has expired"):
        opened.put([letter(3, 1)])


def test_a_large_row_is_kept_with_its_letter(nats_factory: NatsFactory) -> None:
    nats = NatsSpec(url=(nats_factory().url,))
    publisher = Publisher(nats, open_stream(nats, "shop")[0])
    # Cannot be compressed to less than a message.
    large = b'{"x":"' + Random(7).randbytes(1_500_000).hex().encode() + b'"}'
    publisher.publish([(SUBJECT, change(1, large))], Checkpoint(position(1), {"lsn": "1"}), {})
    publisher.flush()
    store = DeadLetters(nats, SPEC, claim(nats), threading.Event())
    store.put([letter(2, 1)])
    with connect(nats) as connection:
        api.purge(connection, "OBJ_CDC_LARGE_shop", [">"])
        (kept,) = store.get([2])
        assert kept is not None
        assert kept.envelope == large
        (head,) = letter_index.heads(connection)
        assert head.large
        held = api.stream_info(connection, "OBJ_CDC_DEAD_LETTERS")
        assert held is not None
        assert held.state.bytes > 1_000_000
        store.delete([2])
        held = api.stream_info(connection, "OBJ_CDC_DEAD_LETTERS")
        assert held is not None
        assert held.state.bytes < 10_000
    store.close()
    publisher.close()


def test_a_full_stream_of_letters_makes_the_sink_wait(nats: NatsSpec, publisher: Publisher) -> None:
    small = DeadLetterSpec(max_bytes=2000)
    stop = threading.Event()
    store = DeadLetters(nats, small, claim(nats, small), stop)
    with capture_logs() as logs:
        work = Background(lambda: store.put([letter(number, 1) for number in range(2, 7)]))
        until(lambda: any("is full" in each["event"] for each in logs))
        assert work.running()
        # A new flow can claim all the same, so that letters can be discarded.
        taken = claim(nats, small)
        assert holds_letters(nats, taken.share, taken.fence)
        claim_letters(nats, DeadLetterSpec(max_bytes=20_000), taken.share)
        with pytest.raises(FencedError):
            work.result()
    again = DeadLetters(nats, SPEC, claim(nats, SPEC), stop)
    with capture_logs():
        again.put([letter(number, 1) for number in range(2, 7)])
    assert [sequence for sequence, _, _ in again.load().letters] == [2, 3, 4, 5, 6]
    store.close()
    again.close()


def test_a_sink_that_waits_goes_on_when_there_is_room(nats: NatsSpec, publisher: Publisher) -> None:
    small = DeadLetterSpec(max_bytes=2000)
    right = claim(nats, small)
    store = DeadLetters(nats, small, right, threading.Event())
    with capture_logs() as logs:
        work = Background(lambda: store.put([letter(number, 1) for number in range(2, 7)]))
        until(lambda: any("is full" in each["event"] for each in logs))
        with connect(nats) as connection:
            held = [head for head in letter_index.heads(connection) if head.sequence < 4]
            assert held
            letter_index.drop(connection, held)
        with connect(nats) as connection:
            info = api.stream_info(connection, "DLQ")
            assert info is not None
            api.update_stream(connection, info.config | {"max_bytes": 20_000})
        work.result()
    left = {sequence for sequence, _, _ in store.load().letters}
    assert left | {head.sequence for head in held} == {2, 3, 4, 5, 6}
    assert sum("is full" in each["event"] for each in logs) == 1
    store.close()


def test_a_flow_that_stops_no_longer_waits_for_room(nats: NatsSpec, publisher: Publisher) -> None:
    small, stop = DeadLetterSpec(max_bytes=700), threading.Event()
    store = DeadLetters(nats, small, claim(nats, small), stop)
    with capture_logs() as logs:
        work = Background(lambda: store.put([letter(number, 1) for number in range(2, 7)]))
        until(lambda: any("is full" in each["event"] for each in logs))
        stop.set()
        with pytest.raises(RetryableError, match="stopped"):
            work.result()
    store.close()


def test_a_request_stays_until_it_is_carried_out(nats: NatsSpec, publisher: Publisher) -> None:
    right = claim(nats)
    early = Requests(nats, right)
    assert early.next() is None
    asked = LetterRequest("replay", right.share.created, [3, 4])
    with connect(nats) as connection, Asking(connection, 1) as asking:
        asking.ask("warehouse", "CDC_shop", asked)
        asking.ask("warehouse", "CDC_shop", replace(asked, action="discard"))

        def heard(requests: Requests, count: int) -> list[Asked]:
            found: list[Asked] = []

            def enough() -> bool:
                if (one := requests.next()) is not None:
                    found.append(one)
                return len(found) == count

            until(enough)
            return found

        heard(early, 2)
        early.close()
        late = Requests(nats, right)
        first, second = heard(late, 2)
        assert (first.request.action, second.request.action) == ("replay", "discard")
        assert first.request.sequences == [3, 4]
        for each in (first, second):
            finish(connection, each.sequence, each.request.reply, LetterAnswer(replayed=2))
            finish(connection, each.sequence, "", LetterAnswer())  # as after a lost answer
        answers, silent = asking.answers(10.0)
        assert ([answer.replayed for answer in answers], silent) == ([2, 2], 0)
        late.close()
        assert api.stream_info(connection, "CDC_REQUESTS").state.messages == 0  # type: ignore[union-attr]


def test_a_selection_is_cut_into_requests_of_some_thousand(
    nats: NatsSpec, publisher: Publisher
) -> None:
    created = claim(nats).share.created
    with connect(nats) as connection, Asking(connection, 1) as asking:
        asking.ask("w", "CDC_shop", LetterRequest("discard", created, list(range(12_000))))
        info = api.stream_info(connection, "CDC_REQUESTS")
        assert info is not None
        assert info.state.messages == 3
        assert asking.answers(0.01) == ([], 3)


def test_letters_that_go_while_they_are_read_are_not_waited_for(
    nats: NatsSpec, opened: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.put([letter(number) for number in range(2, 7)])
    create = api.create_consumer

    def late(connection: Connection, stream: str, config: dict[str, object]) -> api.ConsumerInfo:
        made = create(connection, stream, config)
        opened.delete([3, 5, 6])
        return made

    monkeypatch.setattr(api, "create_consumer", late)
    with connect(nats) as connection:
        assert [head.sequence for head in letter_index.heads(connection)] == [2, 4]
