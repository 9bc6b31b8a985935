"""Replication frames and LSNs."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import FatalError
from connectors.postgres.pgoutput.lsn import format_lsn, parse_lsn
from connectors.postgres.pgoutput.streaming import (
    EPOCH_US,
    Keepalive,
    XLogData,
    parse_frame,
    standby_status,
)


def test_xlog_data() -> None:
    frame = b"w" + struct.pack("!QQq", 0x16_0000_0001, 0x16_0000_0002, 3) + b"Bxyz"
    expected = XLogData(0x16_0000_0001, 0x16_0000_0002, EPOCH_US + 3, b"Bxyz")
    assert parse_frame(frame) == expected
    assert parse_frame(memoryview(frame)) == expected


@pytest.mark.parametrize("reply", [False, True])
def test_keepalive(reply: bool) -> None:
    frame = b"k" + struct.pack("!QqB", 99, -1, reply)
    assert parse_frame(frame) == Keepalive(99, EPOCH_US - 1, reply)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", "postgres.unknown_message"),
        (b"x" + bytes(30), "postgres.unknown_message"),
        (b"\xff" + bytes(30), "postgres.unknown_message"),
        (b"w" + bytes(24), "postgres.malformed_message"),
        (b"k" + bytes(16), "postgres.malformed_message"),
        (b"k" + bytes(18), "postgres.malformed_message"),
    ],
)
def test_other_frames_are_errors(frame: bytes, code: str) -> None:
    with pytest.raises(FatalError) as caught:
        parse_frame(frame)
    assert caught.value.code == code


def test_standby_status() -> None:
    status = standby_status(written=3, flushed=1, applied=2, now_us=EPOCH_US + 9, reply=True)
    assert status == b"r" + struct.pack("!QQQqB", 3, 1, 2, 9, 1)
    assert len(status) == 34
    assert standby_status(written=0, flushed=0, applied=0, now_us=EPOCH_US)[-1] == 0


def test_lsn_text_is_postgresqls() -> None:
    assert parse_lsn("16/B374D848") == 0x16B374D848
    assert format_lsn(0x16B374D848) == "16/B374D848"
    assert format_lsn(0x1_0000_0001) == "1/1"
    assert parse_lsn("0/0") == 0


@given(st.integers(0, 2**64 - 1))
def test_lsn_there_and_back(lsn: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn


@pytest.mark.parametrize("text", ["", "1", "1/", "/1", "1/123456789", "g/1", " 1/1", "1/1\n"])
def test_what_is_no_lsn(text: str) -> None:
    with pytest.raises(FatalError) as caught:
        parse_lsn(text)
    assert caught.value.code == "postgres.invalid_lsn"
