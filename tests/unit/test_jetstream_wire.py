"""The reader of incoming frames, cut anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.jetstream.wire import FrameReader, Incoming

MESSAGES = st.tuples(
    st.sampled_from([b"7", b"8"]),
    st.sampled_from([b"", b"$JS.ACK.a.b"]),
    st.one_of(st.none(), st.binary(max_size=40)),
    st.binary(max_size=60),
)
CONTROL = [b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"max_payload":5}\r\n', b"-ERR 'x y'\r\n"]


def _frame(sid: bytes, reply: bytes, header: bytes | None, payload: bytes) -> bytes:
    words = [b"s.t", sid, reply] if reply else [b"s.t", sid]
    if header is None:
        return b"MSG %b %d\r\n%b\r\n" % (b" ".join(words), len(payload), payload)
    sizes = b"%d %d" % (len(header), len(header) + len(payload))
    return b"HMSG %b %b\r\n%b%b\r\n" % (b" ".join(words), sizes, header, payload)


@given(st.lists(st.one_of(MESSAGES, st.sampled_from(CONTROL)), max_size=20), st.data())
def test_frames_are_found_wherever_the_bytes_are_cut(
    entries: list[bytes | tuple[bytes, bytes, bytes | None, bytes]], data: st.DataObject
) -> None:
    wire = b""
    expected: list[Incoming] = []
    others: list[bytes] = []
    for entry in entries:
        frame = entry if isinstance(entry, bytes) else _frame(*entry)
        wire += frame
        if isinstance(entry, bytes) or entry[0] != b"7":
            others.append(frame)
        else:
            _, reply, header, payload = entry
            expected.append((b"s.t", reply, header or b"", payload))

    received: list[Incoming] = []
    reader = FrameReader()
    reader.routes[b"7"] = received.append
    passed: list[bytes] = []
    while wire:
        size = data.draw(st.integers(1, len(wire)))
        passed += reader.feed(wire[:size])
        wire = wire[size:]
    assert received == expected
    assert passed == others


def test_a_reset_forgets_half_a_frame_and_keeps_the_routes() -> None:
    received: list[Incoming] = []
    reader = FrameReader()
    reader.routes[b"7"] = received.append
    assert reader.feed(b"MSG s 7 10\r\nabc") == []
    reader.reset()
    assert reader.feed(b"MSG s 7 2\r\nok\r\n") == []
    assert received == [(b"s", b"", b"", b"ok")]


def test_a_large_message_is_not_joined_again_for_each_piece() -> None:
    received: list[Incoming] = []
    reader = FrameReader()
    reader.routes[b"7"] = received.append
    payload = b"x" * 50_000_000
    frame = b"MSG s 7 %d\r\n%b\r\n" % (len(payload), payload)
    # Joined for each of these 1500 pieces it would move 40 GB, and run into the time limit.
    for start in range(0, len(frame), 32_768):
        reader.feed(frame[start : start + 32_768])
    assert received == [(b"s", b"", b"", payload)]


@pytest.mark.parametrize("line", [b"MSG s 7\r\n", b"MSG s 7 x\r\n", b"HMSG s 7 1 2 3 4 5\r\n"])
def test_what_is_no_frame_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"unpack|invalid literal"):
        FrameReader().feed(line)
