"""The REST source against a real HTTP server: what a poll makes of the records that it finds."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.errors import FatalError
from connectors.rest.names import parse
from tests.integration.rest_api import ListApi, Polled, ok, polls
from tests.servers.receiver import Reply, Request

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.servers


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


def rotate(api: ListApi) -> None:
    """The first record becomes the last one, without a change."""
    first = next(iter(api.rows))
    api.rows[first] = api.rows.pop(first)


def test_a_record_that_both_readings_have_missed_is_not_taken_for_a_deleted_one(
    api: ListApi, polled: Polled
) -> None:
    api.size = 10
    api.put(*range(30))
    rows = dict(api.rows)
    with polled.reading() as reader:
        polled.next(reader, 30)
        readings = 0

        def the_tenth_slips(request: Request) -> Reply | None:
            # onto the page that was read already, in each reading of two polls
            nonlocal readings
            if "page=2" in request.target and readings < 4:
                readings += 1
                rotate(api)
            elif "page" not in request.target:
                api.rows = dict(rows)
            return None

        api.before = the_tenth_slips
        assert polled.until(reader, lambda: readings == 4) == []
        assert polled.until(reader, polls(api, 8)) == []
        api.before = lambda _request: None
        del api.rows[10]
        assert polled.next(reader, 1) == [("d", 10)]


def test_a_deletion_is_told_though_the_list_never_rests(api: ListApi, polled: Polled) -> None:
    api.size = 10
    api.put(*range(30))
    with polled.reading() as reader:
        polled.next(reader, 30)

        def another_slips(request: Request) -> Reply | None:
            if "page=2" in request.target:
                rotate(api)
            return None

        api.before = another_slips
        del api.rows[25]
        begun = len(api.requests)
        assert polled.next(reader, 1) == [("d", 25)]
        # Three polls, each with two readings of three pages.
        assert len(api.requests) - begun >= 18
        assert polled.until(reader, polls(api, 4)) == []


def test_the_last_of_duplicates_counts(polled: Polled) -> None:
    polled.receiver.answer = lambda _request: ok([{"id": 1, "v": 1}, {"id": 2}, {"id": 1, "v": 2}])
    with polled.reading() as reader:
        assert polled.next(reader, 2) == [("c", 2), ("c", 1)]
    assert msgspec.json.decode(polled.changes[-1].envelope)["after"] == {"id": 1, "v": 2}


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


def test_a_record_without_key_stops_the_source_or_is_skipped(polled: Polled) -> None:
    polled.receiver.answer = lambda _request: ok([{"id": 1}, {"name": "s3cret"}, {"id": 2}])
    with pytest.raises(FatalError) as caught:
        polled.source().open(None)
    assert caught.value.code == "rest.bad_record"
    assert "s3cret" not in str(caught.value)
    polled.settings = {"on_bad_record": "skip"}
    with polled.reading() as reader:
        assert polled.next(reader, 2) == [("c", 1), ("c", 2)]
