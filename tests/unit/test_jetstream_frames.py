"""Batches as they go over the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contracts.changes import Change, Column, TableSchema, UnwrappedChange
from connectors.errors import GapError, PermanentError
from connectors.jetstream.frames import (
    Body,
    StoredCheckpoint,
    cut,
    encode_batch,
    encode_checkpoint,
    read_checkpoint,
    read_headers,
    rename_batch,
)
from connectors.jetstream.stored import parse_headers, sequences, status

TABLE = TableSchema("shop", "public", "users", (Column("id", "bigint", "number"),), ("id",))
PLAIN = Change("m", None, "p1", None, "", False, b"{}")
FULL = Change("u", TABLE, "p2", '{"id":1}', "77", True, b'{"a":1}', ("note", "größe"), ("maß",))


def _encode(*messages: tuple[str, Change], **other: object) -> bytes:
    settings = {"batch": "b" * 32, "reply": "_INBOX.r", "expected": 41, "checkpoint": '{"v":1}'}
    return encode_batch(messages, **(settings | other))  # type: ignore[arg-type]  # mixed values


def test_a_batch_is_exactly_this() -> None:
    begin = b"NATS/1.0\r\nNats-Batch-Id: " + b"b" * 32 + b"\r\n"
    first = (
        begin + b"Nats-Batch-Sequence: 1\r\nCdc-Position: p1\r\n"
        b"Nats-Expected-Last-Sequence: 41\r\n\r\n"
    )
    last = (
        begin + b"Nats-Batch-Sequence: 2\r\nCdc-Position: p1\r\n"
        b'Nats-Batch-Commit: 1\r\nCdc-Checkpoint: {"v":1}\r\n\r\n'
    )
    assert _encode(("CDC.shop.t.0", PLAIN), ("CDC.shop.t.0", PLAIN)) == b"".join(
        (
            b"HPUB CDC.shop.t.0 %d %d\r\n" % (len(first), len(first) + 2),
            first,
            b"{}\r\n",
            b"HPUB CDC.shop.t.0 _INBOX.r %d %d\r\n" % (len(last), len(last) + 2),
            last,
            b"{}\r\n",
        )
    )


def test_a_single_message_is_an_ordinary_one() -> None:
    header = (
        b"NATS/1.0\r\nCdc-Position: p1\r\nNats-Expected-Last-Sequence: 41\r\n"
        b'Cdc-Checkpoint: {"v":1}\r\n\r\n'
    )
    assert _encode(("CDC.shop.t.0", PLAIN)) == (
        b"HPUB CDC.shop.t.0 _INBOX.r %d %d\r\n%b{}\r\n" % (len(header), len(header) + 2, header)
    )


def test_only_the_first_expects_and_only_the_last_commits() -> None:
    frames = _encode(*(("s.t", PLAIN) for _ in range(3)))
    blocks = [read_headers(block) for block in frames.split(b"HPUB")[1:]]
    assert ["Nats-Expected-Last-Sequence" in block for block in blocks] == [True, False, False]
    assert ["Nats-Batch-Commit" in block for block in blocks] == [False, False, True]
    assert ["Cdc-Checkpoint" in block for block in blocks] == [False, False, True]
    assert [block["Nats-Batch-Sequence"] for block in blocks] == ["1", "2", "3"]
    assert [b"_INBOX.r" in line for line in frames.split(b"\r\n") if line.startswith(b"HPUB")] == [
        False,
        False,
        True,
    ]


def test_sizes_are_bytes_and_subjects_may_be_utf8() -> None:
    frames = _encode(("CDC.shop.größe.0", FULL))
    line, rest = frames.split(b"\r\n", 1)
    words = line.split()
    header, total = int(words[3]), int(words[4])
    assert words[1].decode() == "CDC.shop.größe.0"
    assert rest[header - 4 : header] == b"\r\n\r\n"
    assert rest[header:total] == FULL.envelope
    assert rest[total:] == b"\r\n"


def test_what_is_written_is_read_back() -> None:
    [_, header] = _encode(("s.t", FULL)).split(b"\r\n", 1)
    found = parse_headers(header.split(b"\r\n\r\n")[0] + b"\r\n\r\n")
    assert found == (
        "p2",
        "77",
        True,
        TABLE.hash,
        '{"id":1}',
        ("note", "größe"),
        ("maß",),
        "",
        "",
        "",
        "",
        "",
    )


def test_a_message_may_be_for_one_sink() -> None:
    frames = encode_batch(
        [("CDC.shop.items.0", FULL)], batch="b", reply="r", expected=3, checkpoint="{}", sink="new"
    )
    header = frames.split(b"\r\n", 1)[1].split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    found = parse_headers(header)
    assert found is not None
    assert (found.sink, found.key, found.position) == ("new", FULL.key, FULL.position)


def test_a_row_alone_tells_its_operation() -> None:
    for op, row in (("u", b'{"id":1}'), ("d", b"null")):
        change = UnwrappedChange(*FULL._replace(op=op, envelope=row))
        [_, header] = _encode(("s.t", change)).split(b"\r\n", 1)
        found = parse_headers(header.split(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert found is not None
        assert (found.op, found.key, found.unavailable) == (op, FULL.key, FULL.unavailable)


def test_json_nulls_alone_are_read_back() -> None:
    for lists in (((), ("a", 'b"\r\n')), (("c",), ()), ((), ())):
        change = FULL._replace(unavailable=lists[0], json_nulls=lists[1])
        [_, header] = _encode(("s.t", change)).split(b"\r\n", 1)
        found = parse_headers(header.split(b"\r\n\r\n")[0] + b"\r\n\r\n")
        assert found is not None
        assert (found.unavailable, found.json_nulls) == lists
        assert (b"Cdc-Json-Null" in header) == bool(lists[1])


def test_a_body_replaces_the_payload_and_adds_its_headers() -> None:
    body = Body(b"packed", "Cdc-Encoding: zlib\r\nCdc-Object: bucket/name\r\n")
    frames = _encode(("s.t", FULL), bodies={0: body})
    header = frames.split(b"\r\n", 1)[1].split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    found = parse_headers(header)
    assert found is not None
    assert (found.encoding, found.object) == ("zlib", "bucket/name")
    assert frames.endswith(b"\r\n\r\npacked\r\n")


@pytest.mark.parametrize("value", ["a\r\nNats-Msg-Id: x", "a\nb", "a\rb", "ä"])
def test_a_value_never_becomes_another_header(value: str) -> None:
    for change in (
        FULL._replace(position=value),
        FULL._replace(key=value),
        FULL._replace(transaction=value),
    ):
        with pytest.raises(PermanentError) as caught:
            _encode(("s.t", change))
        assert caught.value.code == "jetstream.header"


def test_the_message_that_cannot_be_written_is_named() -> None:
    bad = FULL._replace(position="p3", failed="a\nb")
    with pytest.raises(PermanentError) as caught:
        _encode(("s.t", PLAIN), ("s.u", bad), ("s.v", FULL))
    assert caught.value.where == "s.u at 'p3'"
    with pytest.raises(PermanentError) as caught:
        _encode(("s.t", PLAIN), ("s.v", FULL), checkpoint="ä")
    assert caught.value.where == "s.v at 'p2'"


def test_what_neighbours_share_is_written_for_each() -> None:
    other = FULL._replace(position="p3", transaction="78", last=False)
    messages = [FULL._replace(last=False), FULL, other, other, PLAIN, FULL]
    blocks = _encode(*(("s.t", change) for change in messages)).split(b"HPUB")[1:]
    found = [parse_headers(block.split(b"\r\n", 1)[1].split(b"\r\n\r\n")[0]) for block in blocks]
    assert [
        (each.position, each.transaction, each.last, each.schema) for each in found if each
    ] == [
        (
            change.position,
            change.transaction,
            change.last,
            change.table.hash if change.table else "",
        )
        for change in messages
    ]


def test_a_repetition_has_another_id_everywhere() -> None:
    old, new = "0" * 31 + "1", "0" * 31 + "2"
    for messages in ([("s.t", PLAIN)], [("s.t", PLAIN), ("s.t", FULL)]):
        frames = _encode(*messages, batch=old, reply=f"_INBOX.r.{old}")
        again = _encode(*messages, batch=new, reply=f"_INBOX.r.{new}")
        assert rename_batch(frames, old, new) == again


def test_a_checkpoint_message_has_no_payload() -> None:
    frame = encode_checkpoint("CDC.s.checkpoint", reply="r", expected=3, checkpoint="{}")
    line, rest = frame.split(b"\r\n", 1)
    size = int(line.split()[-1])
    assert line.split()[-2:] == [str(size).encode()] * 2
    assert rest[size:] == b"\r\n"
    assert read_headers(rest[:size])["Nats-Expected-Last-Sequence"] == "3"


@given(
    st.builds(
        StoredCheckpoint,
        writer=st.text(),
        position=st.text(),
        state=st.dictionaries(st.text(), st.text()),
        base=st.integers(min_value=-1, max_value=2**63),
    )
)
def test_a_checkpoint_survives_its_header(stored: StoredCheckpoint) -> None:
    value = stored.header
    assert value.isascii()
    assert not {"\r", "\n"} & set(value)
    assert read_checkpoint(f"NATS/1.0\r\nCdc-Checkpoint: {value}\r\n\r\n".encode(), "s") == stored


@pytest.mark.parametrize("value", ["", "{", '{"v":2,"writer":"","position":"","state":{}}', "[]"])
def test_an_unreadable_checkpoint_is_an_error(value: str) -> None:
    with pytest.raises(GapError) as caught:
        read_checkpoint(f"NATS/1.0\r\nCdc-Checkpoint: {value}\r\n\r\n".encode(), "CDC_shop")
    assert caught.value.code == "jetstream.checkpoint_unreadable"


def test_a_message_without_checkpoint_has_none() -> None:
    assert read_checkpoint(b"NATS/1.0\r\nOther: x\r\n\r\n", "s") is None


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3000)), max_size=60),
    st.integers(4, 20),
    st.integers(500, 9000),
)
def test_cuts_cover_everything_and_part_no_position(
    groups: list[tuple[int, int]], most: int, size: int
) -> None:
    messages = [
        ("s", PLAIN._replace(position=f"{number:04d}", envelope=b"x" * length))
        for number, (copies, length) in enumerate(groups)
        for _ in range(copies)
    ]
    ranges = list(cut(messages, most, size))
    assert [i for start, end in ranges for i in range(start, end)] == list(range(len(messages)))
    for start, end in ranges:
        assert 0 < end - start <= most
        found = [change.position for _, change in messages[start:end]]
        assert start == 0 or messages[start - 1][1].position != found[0]
        total = sum(len(change.envelope) + 400 for _, change in messages[start:end])
        assert total <= size or len(set(found)) == 1


def test_one_change_for_too_many_subjects_is_an_error() -> None:
    with pytest.raises(PermanentError) as caught:
        list(cut([("s", PLAIN)] * 1001, 1000, 10**9))
    assert caught.value.code == "jetstream.too_many_topics"


FAST = b"NATS/1.0\r\nNats-Batch-Id: x\r\nCdc-Position: p\r\nCdc-Tx: 7;last\r\nCdc-Schema: s\r\n"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (FAST + b"Cdc-Key: {}\r\n\r\n", ("p", "7", True, "s", "{}", (), (), "", "", "", "", "")),
        (
            b"NATS/1.0\r\nCdc-Position: p\r\n\r\n",
            ("p", "", False, "", None, (), (), "", "", "", "", ""),
        ),
        (
            b"NATS/1.0\r\nCdc-Key: k\r\nCdc-Position: p\r\nCdc-Tx: 7\r\n\r\n",
            ("p", "7", False, "", "k", (), (), "", "", "", "", ""),
        ),
        (
            b"NATS/1.0\r\nCdc-Position: p\r\nCdc-Key: k\r\nCdc-Tx: ;last\r\n\r\n",
            ("p", "", True, "", "k", (), (), "", "", "", "", ""),
        ),
        (b"NATS/1.0\r\nCdc-Checkpoint: {}\r\n\r\n", None),
        (b"", None),
    ],
)
def test_headers_are_read_in_any_order(header: bytes, expected: tuple[object, ...] | None) -> None:
    assert parse_headers(header) == expected


def test_statuses_are_told_from_messages() -> None:
    assert status(b"NATS/1.0 408 Request Timeout\r\n\r\n") == 408
    assert status(FAST) == 0
    assert status(b"") == 0


@pytest.mark.parametrize(
    "reply",
    [
        b"$JS.ACK.CDC_shop.w-1.1.17.4.1763900000000000000.3",
        b"$JS.ACK.hub.ACCHASH.CDC_shop.w-1.1.17.4.1763900000000000000.3",
        b"$JS.ACK._.ACCHASH.CDC_shop.w-1.1.17.4.1763900000000000000.3.random",
    ],
)
def test_sequences_come_from_the_reply_subject(reply: bytes) -> None:
    assert sequences(reply) == (17, 4)


def test_other_reply_subjects_are_an_error() -> None:
    with pytest.raises(ValueError, match="not the reply subject"):
        sequences(b"_INBOX.a.b")
