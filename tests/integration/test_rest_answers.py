"""The REST source against a real HTTP server that misbehaves."""

from __future__ import annotations

import gzip
import json
import time
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest

from connectors.errors import ConfigError, FatalError, RetryableError
from tests.integration.rest_api import ListApi, Polled, ok
from tests.servers.receiver import Reply, Request

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.servers


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
