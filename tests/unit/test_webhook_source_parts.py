"""The webhook source without a server: its configuration, mapping, rates, known ids, changes."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from connectors.contracts.changes import Failure
from connectors.contracts.inbox import Arrived, InboxMark
from connectors.errors import GapError, RetryableError
from connectors.jetstream.inbox_frames import encode_together, entry, read_got, read_request
from connectors.webhook.known_ids import KnownIds
from connectors.webhook.mapping import Mapped, RequestMapping, UnmappableError
from connectors.webhook.rates import Rates
from connectors.webhook.request_changes import RequestChanges
from connectors.webhook.source_spec import MapSpec, SourceSpec

JSON = {"content-type": "application/json"}
_TABLE = {"table": {"expression": "body.t"}}
_FAILS = "webhook.expression"
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}


def spec(**settings: object) -> SourceSpec:
    given: dict[str, object] = {"type": "webhook", "verify": "none"}
    return SourceSpec.model_validate(given | settings)


def rows(body: bytes, headers: dict[str, str] | None = None, **settings: object) -> list[Mapped]:
    mapping = RequestMapping(MapSpec.model_validate(settings))
    return mapping.rows(body, headers or JSON)


def arrived(body: bytes, sequence: int = 7, headers: dict[str, str] | None = None) -> Arrived:
    mark = InboxMark("2026-01-01T00:00:00Z", sequence, "2026-01-02T03:04:05.678901234Z")
    return Arrived(mark, headers or JSON, body)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"listen": "0.0.0.0:80", "verify": {"bearer": ["x"]}}, "TLS is required"),
        ({"listen": "example.org:80", "allow_http": True}, "must be verified"),
        ({"listen": "8080"}, "address:port"),
        ({"listen": "127.0.0.1:70000"}, "address:port"),
        ({"path": "/health"}, "/health is taken"),
        ({"path": "hooks"}, "a path such as"),
        ({"verify": {}}, "exactly one"),
        ({"verify": {"github": ["a"], "bearer": ["b"]}}, "exactly one"),
        ({"verify": {"standard": ["abc"]}}, "begins with whsec_"),
        ({"verify": {"bearer": [" "]}}, "not empty"),
        ({"map": {"row": "record."}}, "is no JMESPath expression"),
        ({"map": {"key": {"id": "[["}}}, "is no JMESPath expression"),
        ({"map": {"op": {"expression": "body.type", "values": {"x": "r"}}}}, "'c', 'u', 'd'"),
        ({"map": {"table": "ä" * 50}}, "over 255 characters"),
        ({"map": {"op": "x"}}, "'c', 'u' or 'd'"),
        ({"map": {"table": {"expression": "[["}}}, "is no JMESPath expression"),
        ({"headers": ["Authorization"]}, "never stored"),
        ({"columns": {"name": "string"}}, "belongs to the key"),
        ({"columns": {"id": "int"}}, "'integer', 'number'"),
        ({"max_connections": 0}, "greater than or equal to 1"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_a_wrong_setting_is_told(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(**settings)
    (problem,) = caught.value.errors()
    assert told in problem["msg"]
    assert "s3cret" not in str(caught.value)


def test_beyond_loopback_is_allowed_where_it_is_said() -> None:
    assert spec(listen="[::1]:80").address == ("::1", 80)
    spec(listen="0.0.0.0:80", allow_http=True, allow_unverified=True)
    files = {"cert": "cert.pem", "key": "key.pem"}
    spec(listen="0.0.0.0:443", tls=files, verify={"bearer": ["token"]})
    with pytest.raises(ValidationError, match="verify"):
        SourceSpec.model_validate({"type": "webhook"})


def test_the_body_is_the_record_unless_a_list_is_named() -> None:
    assert rows(b'{"id":1,"a":{"b":2}}') == [Mapped("c", "events", {"id": 1, "a": {"b": 2}}, None)]
    found = rows(b'{"data":[{"id":1},{"id":2}]}', records="body.data")
    assert [mapped.row for mapped in found] == [{"id": 1}, {"id": 2}]
    assert rows(b'{"data":[]}', records="body.data") == []


def test_expressions_find_table_key_operation_row_and_time() -> None:
    settings: dict[str, Any] = {
        "table": {"expression": 'headers."x-github-event"'},
        "key": {"id": "body.data.object.id", "tenant": "body.account"},
        "op": {"expression": "body.type", "values": {"gone": "d", "ping": "skip"}, "default": "u"},
        "row": "body.data.object",
        "ts": "body.created",
    }
    headers = JSON | {"x-github-event": "issues"}
    body = b'{"type":"%b","account":"a","created":%b,"data":{"object":%b}}'
    (made,) = rows(body % (b"new", b"1700000000", b'{"id":5,"x":1}'), headers, **settings)
    assert made == Mapped("u", "issues", {"tenant": "a", "id": 5, "x": 1}, 1_700_000_000_000)
    (made,) = rows(body % (b"gone", b"1700000000123", b'{"id":5}'), headers, **settings)
    assert (made.op, made.happened_ms) == ("d", 1_700_000_000_123)
    (made,) = rows(body % (b"x", b'"2023-11-14T22:13:20.5Z"', b'{"id":5}'), headers, **settings)
    assert made.happened_ms == 1_700_000_000_500
    assert rows(body % (b"ping", b"null", b"null"), headers, **settings) == []


def test_a_time_without_a_zone_is_utc_wherever_the_host_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        (made,) = rows(b'{"id":5,"at":"2023-11-14T22:13:20"}', ts="body.at")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert made.happened_ms == 1_700_000_000_000


def test_a_deletion_needs_no_row_where_the_key_is_found_elsewhere() -> None:
    (made,) = rows(b'{"id":3}', op="d", row="body.nothing", key={"id": "body.id"})
    assert made.row == {"id": 3}


def test_forms_are_read_and_a_field_of_them_may_be_the_body() -> None:
    (made,) = rows(b"id=1&name=Ada+L%C3%A4&tag=a&tag=b", FORM)
    assert made.row == {"id": "1", "name": "Ada Lä", "tag": ["a", "b"]}
    (made,) = rows(b"payload=%7B%22id%22%3A1%7D", FORM, form_field="payload")
    assert made.row == {"id": 1}


@pytest.mark.parametrize(
    ("body", "settings", "code"),
    [
        (b"{", {}, "webhook.unreadable"),
        (b"", {}, "webhook.unreadable"),
        (b"\xff", {}, "webhook.unreadable"),
        (b"[" * 100_000, {}, "webhook.unreadable"),
        (b"[1]", {}, "webhook.no_row"),
        (b'{"id":1}', {"row": "body.missing"}, "webhook.no_row"),
        (b'{"id":null}', {}, "webhook.no_key"),
        (b'{"id":[1]}', {}, "webhook.no_key"),
        (b'{"id":1}', {"records": "body.rows"}, "webhook.no_records"),
        (b'{"id":1}', {"table": {"expression": "body.kind"}}, "webhook.no_table"),
        (b'{"id":1}', {"row": "length(body.id)"}, "webhook.expression"),
        pytest.param(b'{"id":"%b"}' % (b"x" * 32_768), {}, "webhook.key_too_long", id="long-key"),
        pytest.param(
            b'{"id":"%b"}' % ("ä" * 6000).encode(), {}, "webhook.key_too_long", id="key-of-escapes"
        ),
        pytest.param(
            b'{"id":1,"t":"%b"}' % (b"x" * 256), _TABLE, "webhook.table_too_long", id="long-table"
        ),
        pytest.param(
            b'{"id":1,"t":"%b"}' % ("ä" * 43).encode(),
            _TABLE,
            "webhook.table_too_long",
            id="table-of-escapes",
        ),
        (b'{"id":1,"%b":2}' % (b"x" * 256), {}, "webhook.column_too_long"),
        (b'{"id":1,"%b":2}' % ("😀" * 64).encode(), {}, "webhook.column_too_long"),
        (b'{"id":1e99999999999999999999}', {}, "webhook.unreadable"),
        (b"payload=\xff", {"form_field": "payload"}, "webhook.unreadable"),
        (b'{"id":1,"v":"a"}', {"op": {"expression": "body.v > `1`", "values": {}}}, _FAILS),
        (b'{"id":1,"v":"a"}', {"row": "{id: body.id, more: &body.v}"}, _FAILS),
    ],
)
def test_what_cannot_be_mapped_is_told_without_values(
    body: bytes, settings: dict[str, Any], code: str
) -> None:
    with pytest.raises(UnmappableError) as caught:
        rows(body, **settings)
    assert caught.value.code == code


def test_plain_paths_find_what_jmespath_finds() -> None:
    body = b'{"id":1,"a":{"b":null,"c":[{"d":1}]}}'
    for path in ("body.a.b", "body.a.c", "body.a.c.d", "body.id.x", "nothing.at.all", "headers"):
        plain = rows(body, key={"id": "body.id"}, row=f"{{v: {path}}}")
        quoted = ".".join(f'"{name}"' for name in path.split("."))
        assert plain == rows(body, key={"id": "body.id"}, row=f"{{v: {quoted}}}")


def test_a_request_is_a_transaction_of_its_rows() -> None:
    made = RequestChanges("hooks", spec(map={"records": "body"}), {})
    changes = made.of(arrived(b'[{"id":1},{"id":2,"x":"y"}]', 255), 0, 5)
    assert [change.position for change in changes] == [
        "0000-00000000000000FF-00000000", "0000-00000000000000FF-00000001",
    ]  # fmt: skip
    assert [change.last for change in changes] == [False, True]
    assert {change.transaction for change in changes} == {"255"}
    assert made.grown
    assert made.columns == {"events": {"id": "integer", "x": "string"}}
    envelope = msgspec.json.decode(changes[1].envelope)
    assert envelope["after"] == {"id": 2, "x": "y"}
    assert envelope["source"]["ts_ms"] == 1767323045678
    assert envelope["source"]["sequence"] == 255
    assert envelope["transaction"] == {"id": "255", "total_order": 2}
    later = made.of(arrived(b'[{"id":3}]', 1), 2, 5)[0]
    assert later.position > changes[1].position
    assert later.transaction == "2-1"


def test_known_columns_outlive_a_restart() -> None:
    made = RequestChanges("hooks", spec(), {"events": {"id": "number", "old": "string"}})
    (change,) = made.of(arrived(b'{"id":1}'), 0, 5)
    assert msgspec.json.decode(change.envelope)["after"] == {"id": 1, "old": None}
    assert not made.grown


def test_a_stored_request_that_cannot_be_mapped_any_more_is_a_failed_change() -> None:
    made = RequestChanges("hooks", spec(), {})
    (change,) = made.of(arrived(b'{"name":"Ada"}'), 0, 5)
    failure = Failure.decode(change.failed)
    assert (failure.pipeline, failure.code) == ("sources.hooks", "webhook.no_key")
    assert change.table is not None
    assert change.key is None
    envelope = msgspec.json.decode(change.envelope)
    assert envelope["message"]["content"] == "eyJuYW1lIjoiQWRhIn0="
    assert envelope["after"] is None


def test_what_no_header_holds_is_a_failed_change_where_it_was_stored_before() -> None:
    made = RequestChanges("hooks", spec(map=_TABLE), {})
    for body in (b'{"id":"%b","t":"a"}' % (b"x" * 40_000), b'{"id":1,"t":"%b"}' % (b"x" * 300)):
        (change,) = made.of(arrived(body), 0, 5)
        assert Failure.decode(change.failed).code.endswith("too_long")
        assert change.table is not None
        assert change.table.name == "unmapped"
    longest = b'{"id":"%b","t":"%b"}' % (b"x" * 32_000, b"x" * 255)
    assert not made.of(arrived(longest), 0, 5)[0].failed


@pytest.mark.parametrize(
    ("body", "settings"),
    [
        (b'{"id":1,"v":"a"}', {"op": {"expression": "body.v > `1`", "values": {}}}),
        (b'{"id":1e99999999999999999999}', {}),
        (b'{"id":1}', {"row": "{id: body.id, more: &body.v}"}),
        (b'{"id":"\xff"}', {}),
    ],
)
def test_an_expression_that_fails_on_a_stored_request_is_no_end_of_the_flow(
    body: bytes, settings: dict[str, Any]
) -> None:
    made = RequestChanges("hooks", spec(map=settings), {})
    (change,) = made.of(arrived(body), 0, 5)
    assert Failure.decode(change.failed).code in ("webhook.unreadable", "webhook.expression")


def test_a_table_has_so_many_columns_however_many_fields_are_sent() -> None:
    def body(name: str, fields: int) -> bytes:
        return msgspec.json.encode({"id": 1} | {f"{name}{n}": n for n in range(fields)})

    with pytest.raises(UnmappableError, match="more than 1000 columns"):
        rows(body("a", 1000))
    assert rows(body("a", 999))
    made = RequestChanges("hooks", spec(), {})
    assert not made.of(arrived(body("a", 600)), 0, 5)[0].failed
    (change,) = made.of(arrived(body("b", 600)), 0, 5)
    assert Failure.decode(change.failed).code == "webhook.too_many_columns"
    assert len(made.columns["events"]) == 601
    assert not made.of(arrived(body("b", 399)), 0, 5)[0].failed
    assert len(made.columns["events"]) == 1000
    assert not made.of(arrived(body("a", 600)), 0, 5)[0].failed
    declared = RequestChanges("hooks", spec(columns={"id": "integer"}), {})
    assert not declared.of(arrived(body("a", 2000)), 0, 5)[0].failed


def test_what_a_request_becomes_in_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.webhook.request_changes._MOST_BYTES", 100_000)
    many = {f"column_{n}": "integer" for n in range(500)}
    made = RequestChanges("hooks", spec(map={"records": "body"}), {"events": many})
    assert len(made.of(arrived(b'[{"id":1},{"id":2}]'), 0, 5)) == 2
    (change,) = made.of(arrived(b"[" + b",".join([b'{"id":1}'] * 100) + b"]"), 0, 5)
    assert Failure.decode(change.failed).code == "webhook.too_large"


def test_rates_let_a_burst_through_and_then_so_many_a_second() -> None:
    rates = Rates(10, 0, 0.5)
    assert [rates.wait("a", 100.0) for _ in range(5)] == [0.0] * 5
    assert rates.wait("b", 100.0) == pytest.approx(0.1)
    assert rates.wait("b", 100.11) == 0.0
    each = Rates(0, 1, 1)
    assert each.wait("a", 0.0) == 0.0
    assert each.wait("a", 0.0) > 0.9
    assert each.wait("b", 0.0) == 0.0


def test_an_id_that_is_being_stored_is_waited_for() -> None:
    async def run() -> None:
        known = KnownIds(10)
        assert not await known.settled("a", 0.0)
        second = asyncio.create_task(known.settled("a", 0.0))
        await asyncio.sleep(0)
        assert not second.done()
        known.over("a", stored=True, now=0.0)
        assert await second
        assert await known.settled("a", 9.9)
        assert not await known.settled("a", 10.1)
        third = asyncio.create_task(known.settled("a", 10.1))
        await asyncio.sleep(0)
        known.over("a", stored=False, now=10.1)
        with pytest.raises(RetryableError):
            await third
        assert not await known.settled("a", 10.1)

    asyncio.run(run())


def test_a_senders_text_cannot_break_a_frame() -> None:
    nasty = 'a\r\nNats-Expected-Last-Sequence: 0\r\n\r\nPUB x 0\r\n"\ud800'
    made = entry(b"body", {"x": nasty}, nasty)
    frame = encode_together("CDCIN.x", [made], "b", "reply")
    head, _, rest = frame.partition(b"\r\n\r\n")
    assert rest == b"body\r\n"
    assert head.count(b"\r\n") == 3


@pytest.mark.parametrize("value", ["plain", 'q"\\', "é\x7f\x01", ""])
def test_a_requests_headers_come_back_from_a_message_as_they_were(value: str) -> None:
    told = entry(b"", {"x-one": value, "x-two": "2"}, "id").head.encode("ascii")
    server = b"Nats-Sequence: 17\r\nNats-Time-Stamp: 2026-01-02T03:04:05.6Z\r\n\r\n"
    got = read_got(b"NATS/1.0\r\n" + told + server)
    assert (got.sequence, got.stored) == (17, "2026-01-02T03:04:05.6Z")
    assert read_request(got.request, "here") == {"x-one": value, "x-two": "2"}


@pytest.mark.parametrize("text", [None, "", "{", "[1]", '{"a":1}'])
def test_a_message_without_a_requests_headers_is_a_strangers(text: str | None) -> None:
    with pytest.raises(GapError, match="not written by Waxtap"):
        read_request(text, "CDCIN_x: 3")


def test_an_answer_without_the_servers_own_headers_is_none() -> None:
    with pytest.raises(ValueError, match="missing"):
        read_got(b"NATS/1.0\r\nCdc-Request: {}\r\n\r\n")
