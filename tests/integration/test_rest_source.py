"""The REST source against a real HTTP server that misbehaves."""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
import ssl
import time
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from connectors.contracts.source import Checkpoint
from connectors.errors import ConfigError, FatalError, GapError, RetryableError
from connectors.rest.compare import Comparison
from connectors.rest.names import parse
from tests.integration.rest_api import ListApi, Polled, ok, told
from tests.servers.receiver import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from tests.servers.certificate import Certificate

pytestmark = pytest.mark.servers


@pytest.fixture
def api() -> ListApi:
    return ListApi()


@pytest.fixture
def polled(api: ListApi) -> Iterator[Polled]:
    found = Polled(api)
    yield found
    found.close()


def polls(api: ListApi, more: int) -> Callable[[], bool]:
    """Whether so many requests more have come."""
    whole = len(api.requests) + more
    return lambda: len(api.requests) >= whole


def test_records_are_created_updated_and_deleted(api: ListApi, polled: Polled) -> None:
    api.put(*range(1, 21), name="Ä")
    with polled.reading() as reader:
        assert polled.next(reader, 20) == [("c", number) for number in range(1, 21)]
        del api.rows[2]
        api.put(1, name="b")
        api.put(30, name="n")
        assert polled.next(reader, 3) == [("d", 2), ("u", 1), ("c", 30)]
    deleted, updated, created = (msgspec.json.decode(c.envelope) for c in polled.changes[-3:])
    assert (deleted["before"], deleted["after"]) == ({"id": 2}, None)
    assert (updated["before"], updated["after"]) == (None, {"id": 1, "name": "b"})
    assert created["source"]["table"] == polled.name
    assert created["transaction"]["id"] == polled.changes[-1].transaction
    assert [change.last for change in polled.changes[-3:]] == [False, False, True]


def test_a_poll_without_changes_stores_nothing(api: ListApi, polled: Polled) -> None:
    api.put(1, 2)
    with polled.reading() as reader:
        polled.next(reader, 2)
        polled.until(reader, polls(api, 2))
        before = dict(polled.state.files)
        assert polled.until(reader, polls(api, 5)) == []
        assert polled.state.files == before
    assert len([name for name in before if parse(name)]) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Reply(500),
        Reply(429, {"retry-after": "0"}),
        Reply(503),
        Reply(200, body=b"[{"),
        Reply(200, body=b"<html>"),
        Reply(200, body=b'[{"id":"\xff"}]'),
        Reply(200, body=b'[{"id":1e99999999999999999999}]'),
        Reply(200, {"content-encoding": "gzip"}, b"[]"),
        Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n[{", close=True),
        Reply(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n[", reset=True),
        Reply(raw=b"", reset=True),
        Reply(200, after=1.5, body=b"[]"),
    ],
    ids=lambda fault: f"{fault.status}-{(fault.raw or fault.body)[:12]!r}-{fault.after}",
)
def test_a_page_that_fails_is_read_again_and_no_other(api: ListApi, fault: Reply) -> None:
    api.size = 10
    api.put(*range(30))
    polled = Polled(api, read_timeout="500ms")
    with closing(polled):
        api.faults += [None, fault, fault, None, None]
        with polled.reading() as reader:
            assert polled.next(reader, 30) == [("c", number) for number in range(30)]
        pages = [request.target for request in api.requests[:5]]
        assert pages == ["/items", *["/items?page=2"] * 3, "/items?page=3"]
        assert len({change.transaction for change in polled.changes}) == 1


def test_a_poll_that_stays_short_deletes_nothing(api: ListApi, polled: Polled) -> None:
    api.size = 10
    api.put(*range(30))
    with polled.reading() as reader:
        polled.next(reader, 30)

        def second_page_fails(request: Request) -> Reply | None:
            return Reply(404) if "page=2" in request.target else None

        api.before = second_page_fails
        assert polled.until(reader, polls(api, 6)) == []
        api.before = lambda _request: None
        api.put(5, name="later")
        assert polled.next(reader, 1) == [("u", 5)]


def test_records_that_change_their_page_while_they_are_read(api: ListApi, polled: Polled) -> None:
    api.size = 10
    api.put(*range(30))
    with polled.reading() as reader:
        polled.next(reader, 30)
        moves = deque([0, 1, 2])

        def first_record_goes(request: Request) -> Reply | None:
            # behind the first page: the first record of the second one slips onto it, unread
            if "page=2" in request.target and moves:
                del api.rows[moves.popleft()]
            return None

        api.before = first_record_goes
        assert sorted(polled.next(reader, 3)) == [("d", 0), ("d", 1), ("d", 2)]
        assert polled.until(reader, polls(api, 8)) == []


def test_the_last_of_duplicates_counts(polled: Polled) -> None:
    polled.receiver.answer = lambda _request: ok([{"id": 1, "v": 1}, {"id": 2}, {"id": 1, "v": 2}])
    with polled.reading() as reader:
        assert polled.next(reader, 2) == [("c", 2), ("c", 1)]
    assert msgspec.json.decode(polled.changes[-1].envelope)["after"] == {"id": 1, "v": 2}


def test_too_many_deletions_stop_the_source_until_they_are_confirmed(
    api: ListApi, polled: Polled
) -> None:
    api.put(*range(100))
    with polled.reading() as reader:
        polled.next(reader, 100)
        for number in range(40, 100):
            del api.rows[number]
        with pytest.raises(GapError) as caught:
            polled.next(reader, 1)
    assert caught.value.code == "rest.too_many_deletions"
    assert "60 of 100" in caught.value.message
    stored = dict(polled.state.files)
    with pytest.raises(GapError):
        polled.source().open(polled.checkpoint)
    assert {name for name in polled.state.files if parse(name)} <= set(stored)
    polled.accept = [f"deletions:{polled.name}@1-60"]
    with polled.reading() as reader:
        assert polled.next(reader, 60) == [("d", number) for number in range(40, 100)]
        # another loss is another token
        for number in range(39):
            del api.rows[number]
        with pytest.raises(GapError):
            polled.next(reader, 1)


def test_an_empty_list_is_guarded_however_short_it_was(api: ListApi, polled: Polled) -> None:
    api.put(1, 2, 3)
    with polled.reading() as reader:
        polled.next(reader, 3)
        del api.rows[1]
        assert polled.next(reader, 1) == [("d", 1)]
        api.rows.clear()
        with pytest.raises(GapError):
            polled.next(reader, 1)


@pytest.mark.parametrize(
    ("settings", "gone"), [({"max_deletions": "10%"}, 2), ({"max_deletions": "0%"}, 1), ({}, 6)]
)
def test_few_deletions_are_too_many_where_few_are_allowed(
    api: ListApi, polled: Polled, settings: dict[str, object], gone: int
) -> None:
    api.put(*range(10))
    polled.settings = settings
    with polled.reading() as reader:
        polled.next(reader, 10)
        for number in range(gone - 1):
            del api.rows[number]
        assert polled.next(reader, gone - 1) == [("d", number) for number in range(gone - 1)]
    api.put(*range(10))
    with polled.reading() as reader:
        polled.until(reader, lambda: len(polled.changes) >= 10 + 2 * (gone - 1))
        for number in range(gone):
            del api.rows[number]
        with pytest.raises(GapError) as caught:
            polled.next(reader, 1)
    assert caught.value.code == "rest.too_many_deletions"


def test_one_short_answer_deletes_nothing(api: ListApi, polled: Polled) -> None:
    api.put(*range(4))
    with polled.reading() as reader:
        polled.next(reader, 4)
        api.faults += [ok([{"id": 0}, {"id": 1}, {"id": 2}])]
        assert polled.until(reader, polls(api, 4)) == []


def test_a_skipped_record_is_never_taken_for_a_deleted_one(api: ListApi, polled: Polled) -> None:
    api.put(1, 2, 3)
    polled.settings = {"on_bad_record": "skip"}
    with polled.reading() as reader:
        polled.next(reader, 3)
        api.rows[2] = {"name": "without key"}
        api.put(3, name="x")
        assert polled.next(reader, 1) == [("u", 3)]
        assert polled.until(reader, polls(api, 4)) == []
        del api.rows[2]
        assert polled.next(reader, 1) == [("d", 2)]


def test_incremental_reads_pages_that_move_once_more(api: ListApi, polled: Polled) -> None:
    polled.settings = {
        "mode": "incremental",
        "cursor": {"field": "at", "param": "since"},
        "pagination": {"type": "offset", "limit": 2},
    }
    rows: dict[int, str] = {n: f"2026-01-01T00:00:0{n}Z" for n in range(1, 5)}

    def by_offset(request: Request) -> Reply:
        api.requests.append(request)
        query = parse_qs(urlsplit(request.target).query)
        since, offset = query.get("since", [""])[0], int(query["offset"][0])
        if offset == 2 and rows[1] < rows[4]:
            # it goes to the end, and the third one to the page that was read already
            rows[1] = "2026-01-01T00:00:05Z"
        found = sorted((at, n) for n, at in rows.items() if at >= since)
        return ok([{"id": n, "at": at} for at, n in found[offset : offset + 2]])

    polled.receiver.answer = by_offset
    with polled.reading() as reader:
        assert {number for _, number in polled.next(reader, 4)} == {1, 2, 3, 4}
        assert polled.until(reader, polls(api, 4)) == []


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


def test_another_mode_compares_anew(api: ListApi, polled: Polled) -> None:
    api.put(1, 2, at="2026-01-01T00:00:00Z")
    with polled.reading() as reader:
        polled.next(reader, 2)
        api.put(1, name="x")
        polled.next(reader, 1)
    full = polled.settings
    polled.settings = {"mode": "incremental", "cursor": {"field": "at", "param": "since"}}
    with polled.reading() as reader:
        assert sorted(polled.next(reader, 2)) == [("u", 1), ("u", 2)]
    polled.settings = full
    with polled.reading() as reader:
        assert sorted(polled.next(reader, 2)) == [("c", 1), ("c", 2)]


def test_incremental_asks_for_what_is_newer_and_neither_loses_nor_repeats_ties(
    api: ListApi,
) -> None:
    polled = Polled(
        api,
        mode="incremental",
        cursor={"field": "at", "param": "since"},
        created_field="made",
    )
    with closing(polled):
        api.put(1, 2, at="2026-01-01T00:00:01Z", made="2026-01-01T00:00:01Z")
        with polled.reading() as reader:
            assert polled.next(reader, 2) == [("c", 1), ("c", 2)]
            # the same moment, seen later
            api.put(3, at="2026-01-01T00:00:01Z", made="2026-01-01T00:00:01Z")
            assert polled.next(reader, 1) == [("u", 3)]
            api.put(4, at="2026-01-01T00:00:02Z", made="2026-01-01T00:00:02Z")
            api.put(1, at="2026-01-01T00:00:02Z")
            assert sorted(polled.next(reader, 2)) == [("c", 4), ("u", 1)]
            assert polled.until(reader, polls(api, 4)) == []
        asked = parse_qs(urlsplit(api.requests[-1].target).query)
        assert asked == {"since": ["2026-01-01T00:00:02Z"]}
        with polled.reading() as reader:
            assert polled.until(reader, polls(api, 3)) == []
            api.put(5, at="2026-01-01T00:00:02Z")
            assert polled.next(reader, 1) == [("u", 5)]


def test_incremental_looks_back_for_what_comes_late(api: ListApi) -> None:
    polled = Polled(
        api, mode="incremental", cursor={"field": "at", "param": "since", "overlap": "10s"}
    )
    with closing(polled):
        api.put(1, at="2026-01-01T00:01:00Z")
        with polled.reading() as reader:
            polled.next(reader, 1)
            api.put(2, at="2026-01-01T00:00:55Z")
            assert polled.next(reader, 1) == [("u", 2)]
            api.put(3, at="2026-01-01T00:00:30Z")
            assert polled.until(reader, polls(api, 4)) == []
        asked = parse_qs(urlsplit(api.requests[-1].target).query)
        assert asked == {"since": ["2026-01-01T00:00:50Z"]}


@pytest.mark.parametrize("format_", ["unix", "%Y-%m-%d"])
def test_what_is_asked_for_more_coarsely_than_records_tell_comes_once(
    api: ListApi, polled: Polled, format_: str
) -> None:
    api.put(1, 2, at="2026-01-01T00:00:01.250Z")
    api.put(3, at="2026-01-01T00:00:01.750Z")
    polled.receiver.answer = lambda request: api(request._replace(target="/items"))
    polled.settings = {
        "mode": "incremental",
        "cursor": {"field": "at", "param": "since", "format": format_},
    }
    with polled.reading() as reader:
        assert polled.next(reader, 3) == [("u", 1), ("u", 2), ("u", 3)]
        assert polled.until(reader, polls(api, 4)) == []
    with polled.reading() as reader:
        assert polled.until(reader, polls(api, 4)) == []


def test_not_modified_means_that_nothing_has_changed(api: ListApi, polled: Polled) -> None:
    api.put(1)

    def tagged(request: Request) -> Reply:
        api.requests.append(request)
        tag = f'"{len(api.rows)}"'
        if request.headers.get("if-none-match") == tag:
            return Reply(304)
        return ok(list(api.rows.values()), etag=tag, last_modified="yesterday")

    polled.receiver.answer = tagged
    with polled.reading() as reader:
        polled.next(reader, 1)
        polled.until(reader, polls(api, 3))
        assert api.requests[-1].headers["if-none-match"] == '"1"'
        assert api.requests[-1].headers["if-modified-since"] == "yesterday"
        api.put(2)
        assert polled.next(reader, 1) == [("c", 2)]


def test_another_question_is_asked_without_conditions(api: ListApi, polled: Polled) -> None:
    api.put(1)

    def tagged(request: Request) -> Reply:
        api.requests.append(request)
        if "if-none-match" in request.headers:
            return Reply(304)
        rows = [*api.rows.values()] if "all=1" in request.target else [api.rows[1]]
        return ok(rows, etag='"1"')

    polled.receiver.answer = tagged
    with polled.reading() as reader:
        polled.next(reader, 1)
    api.put(2)
    polled.settings = {"query": {"all": "1"}}
    with polled.reading() as reader:
        assert polled.next(reader, 1) == [("c", 2)]
        polled.until(reader, polls(api, 1))
        assert api.requests[-1].headers["if-none-match"] == '"1"'
    with polled.reading() as reader:
        polled.until(reader, polls(api, 1))
        assert "if-none-match" in api.requests[-1].headers


def test_another_question_begins_without_cursor(api: ListApi, polled: Polled) -> None:
    api.put(1, at="2026-01-01T00:00:01Z", seen="2026-01-01T00:00:09Z")
    api.put(2, at="2026-01-01T00:00:02Z", seen="2026-01-01T00:00:03Z")
    polled.settings = {"mode": "incremental", "cursor": {"field": "at", "param": "since"}}
    with polled.reading() as reader:
        assert polled.next(reader, 2) == [("u", 1), ("u", 2)]
    polled.settings["query"] = {"archived": "1"}
    with polled.reading() as reader:
        assert polled.next(reader, 2) == [("u", 1), ("u", 2)]
        assert polled.until(reader, polls(api, 2)) == []
    polled.settings["cursor"] = {"field": "seen", "param": "since"}
    with polled.reading() as reader:
        assert polled.next(reader, 2) == [("u", 1), ("u", 2)]


def test_retry_after_is_waited_for(api: ListApi, polled: Polled) -> None:
    api.put(1)
    api.faults += [Reply(429, {"retry-after": "1"})]
    began = time.monotonic()
    with polled.reading() as reader:
        polled.next(reader, 1)
    assert time.monotonic() - began >= 1.0


def test_an_answer_of_100_mb_is_refused_or_taken_as_the_limit_says(polled: Polled) -> None:
    text = b'{"id":%d,"text":"%b"}'
    body = b"[" + b",".join(text % (n, b"x" * 100_000) for n in range(1000)) + b"]"
    assert len(body) > 100_000_000
    polled.receiver.answer = lambda _request: Reply(200, body=body)
    with pytest.raises(ConfigError) as caught:
        polled.source().open(None)
    assert caught.value.code == "rest.page_too_large"
    polled.settings = {"max_page": "200MB", "interval": "1h"}
    with polled.reading() as reader:
        assert len(polled.next(reader, 1000)) == 1000


def test_a_compressed_answer_is_taken_and_bounded(api: ListApi, polled: Polled) -> None:
    rows = (
        b"[" + b",".join(b'{"id":%d,"text":"%b"}' % (n, b"x" * 50_000) for n in range(100)) + b"]"
    )
    packed = gzip.compress(rows)
    assert len(packed) < 50_000

    def compressed(request: Request) -> Reply:
        api.requests.append(request)
        return Reply(200, {"content-encoding": "gzip"}, packed)

    polled.receiver.answer = compressed
    polled.settings = {"max_page": "1MB"}
    assert [error.code for error in polled.source().check()] == ["rest.page_too_large"]
    polled.settings = {"max_page": "6MB"}
    with polled.reading() as reader:
        assert len(polled.next(reader, 100)) == 100
    assert api.requests[-1].headers["accept-encoding"] == "gzip, deflate"
    polled.receiver.answer = lambda _request: Reply(200, {"content-encoding": "br"}, b"x")
    assert [error.code for error in polled.source().check()] == ["rest.encoding"]


def test_a_record_without_key_stops_the_source_or_is_skipped(polled: Polled) -> None:
    polled.receiver.answer = lambda _request: ok([{"id": 1}, {"name": "s3cret"}, {"id": 2}])
    with pytest.raises(FatalError) as caught:
        polled.source().open(None)
    assert caught.value.code == "rest.bad_record"
    assert "s3cret" not in str(caught.value)
    polled.settings = {"on_bad_record": "skip"}
    with polled.reading() as reader:
        assert polled.next(reader, 2) == [("c", 1), ("c", 2)]


def test_credentials_are_sent(api: ListApi, polled: Polled) -> None:
    api.put(1)
    basic = base64.b64encode(b"u:p").decode()
    cases: list[tuple[dict[str, str], str, str]] = [
        ({"type": "bearer", "token": "t"}, "authorization", "Bearer t"),
        ({"type": "basic", "user": "u", "password": "p"}, "authorization", f"Basic {basic}"),
        ({"type": "api_key", "key": "k", "header": "x-key"}, "x-key", "k"),
    ]
    for auth, header, value in cases:
        polled.settings = {"auth": auth}
        polled.state.files.clear()
        with closing(polled.source().open(None)):
            assert api.requests[-1].headers[header] == value
    polled.state.files.clear()
    polled.settings = {"auth": {"type": "api_key", "key": "k", "query": "key"}, "query": {"a": "b"}}
    with closing(polled.source().open(None)):
        assert parse_qs(urlsplit(api.requests[-1].target).query) == {"key": ["k"], "a": ["b"]}


def test_a_token_is_fetched_and_renewed(api: ListApi) -> None:
    api.put(1)
    tokens: list[str] = []

    def answer(request: Request) -> Reply:
        if request.target == "/token":
            fields = parse_qs(request.body.decode())
            assert fields == {"grant_type": ["client_credentials"], "scope": ["read"]}
            assert request.headers["authorization"].startswith("Basic ")
            tokens.append(f"token-{len(tokens)}")
            return ok({"access_token": tokens[-1], "token_type": "Bearer", "expires_in": 3600})
        if request.headers["authorization"] != f"Bearer {tokens[-1]}" or request.target == "/no":
            return Reply(401)
        return api(request)

    polled = Polled(answer)
    with closing(polled):
        url = f"http://127.0.0.1:{polled.receiver.port}/token"
        auth = {"type": "oauth2", "token_url": url, "client_id": "c", "client_secret": "s"}
        polled.settings = {"auth": {**auth, "scope": "read"}}
        with polled.reading() as reader:
            polled.next(reader, 1)
            assert tokens == ["token-0"]
            tokens.append("revoked by the server")
            api.put(2)
            assert polled.next(reader, 1) == [("c", 2)]
            assert len(tokens) == 3


@pytest.mark.parametrize("token", ["s3cret\n", "s3cr\u00e9t", "", " s3cret", "s3\r\ncret: x"])
def test_a_token_that_can_be_no_header_is_never_shown(
    api: ListApi, polled: Polled, token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    polled.receiver.answer = lambda request: (
        ok({"access_token": token}) if request.target == "/token" else api(request)
    )
    url = f"http://127.0.0.1:{polled.receiver.port}/token"
    auth = {"type": "oauth2", "token_url": url, "client_id": "c", "client_secret": "s"}
    polled.settings = {"auth": auth}
    with pytest.raises(RetryableError) as caught:
        polled.source().open(None)
    assert caught.value.code == "rest.token"
    assert "s3" not in str(caught.value)
    assert "s3cr" not in "".join(capsys.readouterr())
    assert api.requests == []


@pytest.mark.parametrize(
    ("life", "taken"), [("3600", True), (3600, True), (0.5, True), (None, True), ("soon", False)]
)
def test_a_tokens_life_may_be_written_as_a_string(
    api: ListApi, polled: Polled, life: object, taken: bool
) -> None:
    api.put(1)
    polled.receiver.answer = lambda request: (
        ok({"access_token": "t", "expires_in": life})
        if request.target == "/token"
        else api(request)
    )
    url = f"http://127.0.0.1:{polled.receiver.port}/token"
    auth = {"type": "oauth2", "token_url": url, "client_id": "c", "client_secret": "s"}
    polled.settings = {"auth": auth}
    assert [error.code for error in polled.source().check()] == ([] if taken else ["rest.token"])


def test_redirects_stay_on_the_host(api: ListApi, polled: Polled) -> None:
    api.put(1)
    api.faults += [Reply(307, {"location": "/items?moved=1"})]
    with polled.reading() as reader:
        polled.next(reader, 1)
    api.faults += [Reply(302, {"location": "http://127.0.0.2/"})]
    with pytest.raises(ConfigError) as caught:
        polled.source().open(polled.checkpoint)
    assert caught.value.code == "rest.redirects"


@pytest.mark.parametrize("target", ["http://127.0.0.1:99999/", "http://[x/", "http://127.0.0.1:x/"])
def test_a_redirect_to_what_is_no_url_is_told(api: ListApi, polled: Polled, target: str) -> None:
    api.faults += [Reply(307, {"location": target})]
    (error,) = polled.source().check()
    assert error.code in {"rest.redirects", "rest.connection"}
    api.faults += [ok([{"id": 1}], link=f'<{target}>; rel="next"')]
    assert [error.code for error in polled.source().check()] == ["rest.pagination"]


@pytest.mark.parametrize("target", ["/x" * 40_000, "http://127.0.0.1\x7f/", "/\ud800"])
def test_what_leads_nowhere_is_told(polled: Polled, target: str) -> None:
    body = msgspec.json.encode([{"id": 1}])
    text = json.dumps({"rows": json.loads(body), "next": target}).encode()
    polled.receiver.answer = lambda _request: Reply(200, body=text)
    polled.settings = {"records": "rows", "pagination": {"type": "next_url", "path": "next"}}
    (error,) = polled.source().check()
    assert error.code in {"rest.pagination", "rest.invalid_json"}


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


def test_a_refusal_stops_a_start_and_is_waited_for_later(api: ListApi, polled: Polled) -> None:
    api.put(1)
    with polled.reading() as reader:
        polled.next(reader, 1)
        api.faults += [Reply(403)] * 3
        api.put(2)
        assert polled.next(reader, 1) == [("c", 2)]
    api.faults += [Reply(403)]
    with pytest.raises(ConfigError):
        polled.source().open(polled.checkpoint)


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


def test_a_server_is_verified(api: ListApi, certificate: Certificate) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    api.put(1)
    polled = Polled(api, tls=context)
    with closing(polled):
        with pytest.raises(RetryableError) as caught:
            polled.source().open(None)
        assert "s3cret-word" not in str(caught.value)
        polled.settings["tls"] = {"ca": str(certificate.certificate)}
        with polled.reading() as reader:
            assert polled.next(reader, 1) == [("c", 1)]
        polled.settings["tls"] = {"ca": "/nowhere.pem"}
        with pytest.raises(ConfigError) as refused:
            polled.source().open(None)
        assert refused.value.code == "rest.tls"


def test_a_check_asks_once_for_the_first_page_and_stores_nothing(
    api: ListApi, polled: Polled
) -> None:
    api.size = 10
    api.put(*range(30), at="7")
    assert polled.source().check() == []
    polled.settings |= {
        "mode": "incremental",
        "cursor": {"field": "at", "param": "since", "type": "integer", "initial": 7},
    }
    assert polled.source().check() == []
    assert [request.target for request in api.requests] == ["/items", "/items?since=7"]
    assert polled.state.files == {}


@pytest.mark.parametrize(
    ("answer", "settings", "error", "code"),
    [
        (Reply(503), {}, RetryableError, "rest.status"),
        (Reply(200, body=b"<html>"), {}, RetryableError, "rest.invalid_json"),
        (Reply(403), {}, ConfigError, "rest.refused"),
        (ok([{"name": "x"}]), {}, FatalError, "rest.bad_record"),
        (ok([{"name": "x"}]), {"on_bad_record": "skip"}, None, ""),
        (ok({"rows": []}), {}, ConfigError, "rest.no_records"),
        (
            ok([{"id": 1}]),
            {"pagination": {"type": "next_url", "path": "length(@)"}, "max_pages": 1},
            ConfigError,
            "rest.too_many_pages",
        ),
        (ok([], link="<http://elsewhere.test/>; rel=next"), {}, ConfigError, "rest.foreign_page"),
    ],
)
def test_a_check_tells_what_the_first_page_would_fail_with(
    api: ListApi,
    polled: Polled,
    answer: Reply,
    settings: dict[str, object],
    error: type[Exception] | None,
    code: str,
) -> None:
    api.faults += [answer]
    polled.settings |= settings
    found = polled.source().check()
    assert [one.code for one in found] == ([code] if error else [])
    assert all(error and isinstance(one, error) for one in found)
    assert len(api.requests) == 1
