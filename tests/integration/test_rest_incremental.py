"""The REST source against a real HTTP server: records that are asked for by what is newer."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.integration.rest_api import ListApi, Polled, ok, polls
from tests.servers.receiver import Reply, Request

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.servers


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


def test_incremental_does_not_pass_a_record_that_both_readings_have_missed(
    api: ListApi, polled: Polled
) -> None:
    polled.settings = {
        "mode": "incremental",
        "cursor": {"field": "at", "param": "since"},
        "pagination": {"type": "offset", "limit": 2},
    }
    rows: dict[int, str] = {n: f"2026-01-01T00:00:0{n}Z" for n in range(1, 6)}
    # The third one slips onto the page that was read, in both readings of the first poll.
    moves = deque([{}, {1: 7}, {0: 0}, {0: 8}])

    def by_offset(request: Request) -> Reply:
        api.requests.append(request)
        query = parse_qs(urlsplit(request.target).query)
        since, offset = query.get("since", [""])[0], int(query["offset"][0])
        if moves and offset <= 2:
            for number, second in moves.popleft().items():
                rows[number] = f"2026-01-01T00:00:0{second}Z"
        found = sorted((at, n) for n, at in rows.items() if at >= since)
        return ok([{"id": n, "at": at} for at, n in found[offset : offset + 2]])

    polled.receiver.answer = by_offset
    with polled.reading() as reader:
        assert {number for _, number in polled.next(reader, 5)} == {0, 1, 2, 4, 5}
        assert polled.next(reader, 1) == [("u", 3)]
        assert polled.until(reader, polls(api, 8)) == []
    asked = parse_qs(urlsplit(api.requests[-1].target).query)
    assert asked["since"] == ["2026-01-01T00:00:08Z"]


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
