"""The exact parser of pgoutput."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import FatalError
from connectors.postgres.pgoutput.messages import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Origin,
    Relation,
    RelationColumn,
    Truncate,
    Type,
    Update,
)
from connectors.postgres.pgoutput.parser import parse
from connectors.postgres.pgoutput.streaming import EPOCH_US
from tests.unit import wal

MESSAGES: list[tuple[bytes, LogicalMessage]] = [
    (wal.begin(0x1_0000_0002, 77, 5), Begin(0x1_0000_0002, EPOCH_US + 5, 77)),
    (wal.begin(1, 7, -5), Begin(1, EPOCH_US - 5, 7)),
    (wal.commit(10, 20, 6), Commit(10, 20, EPOCH_US + 6)),
    (b"O" + struct.pack("!Q", 9) + b"pg_16389\0", Origin(9, "pg_16389")),
    (b"Y" + struct.pack("!I", 16400) + b"shop\0mood\0", Type(16400, "shop", "mood")),
    (
        wal.relation(16385, "ü\"t'", [("id", 23, True), ("n", 1700, False, 655366)], identity="i"),
        Relation(
            16385,
            "public",
            "ü\"t'",
            "i",
            (RelationColumn("id", 23, -1, True), RelationColumn("n", 1700, 655366, False)),
        ),
    ),
    (
        wal.relation(1259, "pg_class", [], schema="", identity="n"),
        Relation(1259, "pg_catalog", "pg_class", "n", ()),
    ),
    (wal.insert(1, ["1", None, "é" * 200]), Insert(1, ("1", None, "é" * 200))),
    (wal.insert(1, []), Insert(1, ())),
    (wal.update(1, ["2", UNCHANGED]), Update(1, "", None, ("2", UNCHANGED))),
    (wal.update(1, ["2"], ["1"], "K"), Update(1, "K", ("1",), ("2",))),
    (wal.update(1, ["2"], [""], "O"), Update(1, "O", ("",), ("2",))),
    (wal.delete(1, ["1", None]), Delete(1, "K", ("1", None))),
    (wal.delete(1, ["1", "x"], "O"), Delete(1, "O", ("1", "x"))),
    (wal.truncate(1, 2, options=3), Truncate((1, 2), True, True)),
    (wal.truncate(1, options=1), Truncate((1,), True, False)),
    (wal.truncate(1, options=2), Truncate((1,), False, True)),
    (wal.message(8, "p", b"\0\xff", transactional=True), Message(True, 8, "p", b"\0\xff")),
    (wal.message(8, "", b"", transactional=False), Message(False, 8, "", b"")),
]


@pytest.mark.parametrize(("data", "expected"), MESSAGES, ids=lambda value: type(value).__name__)
def test_every_message(data: bytes, expected: LogicalMessage) -> None:
    assert parse(data) == expected


@pytest.mark.parametrize("data", [data for data, _ in MESSAGES])
def test_a_shortened_or_lengthened_message_is_malformed(data: bytes) -> None:
    for wrong in (*(data[:size] for size in range(1, len(data))), data + b"\0"):
        with pytest.raises(FatalError) as caught:
            parse(wrong)
        assert caught.value.code == "postgres.malformed_message"


@pytest.mark.parametrize("kind", [b"S", b"E", b"c", b"A", b"b", b"P", b"K", b"r", b"p", b"", b"\0"])
def test_an_unknown_message_is_an_error(kind: bytes) -> None:
    with pytest.raises(FatalError) as caught:
        parse(kind + bytes(40))
    assert caught.value.code in ("postgres.unknown_message", "postgres.malformed_message")
    if kind.strip(b"\0"):
        assert caught.value.code == "postgres.unknown_message"


@pytest.mark.parametrize(
    "data",
    [
        wal.insert(1, ["x"]).replace(b"t", b"b"),  # a binary value
        wal.insert(1, ["x"]).replace(b"N", b"O"),
        wal.insert(1, [b"\xff"]),
        wal.insert(1, [b"a\0b"]),
        wal.delete(1, ["x"]).replace(b"K", b"N"),
        wal.update(1, ["x"], ["y"]).replace(b"N", b"K"),
        wal.relation(1, "t", [], identity="x"),
        wal.truncate(1)[:1] + struct.pack("!IB", 0xFFFFFFFF, 0),
    ],
)
def test_nonsense_is_malformed(data: bytes) -> None:
    with pytest.raises(FatalError) as caught:
        parse(data)
    assert caught.value.code == "postgres.malformed_message"


@given(st.binary(max_size=80))
def test_any_bytes_give_a_message_or_the_error(data: bytes) -> None:
    try:
        parse(data)
    except FatalError as error:
        assert error.code.endswith("_message")  # noqa: PT017 - either outcome is right
