"""Requests and answers of HTTP/1.1 as bytes (RFC 9112)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.webhook.http1 import LONGEST, AnswerReader, MalformedAnswerError, request_head

EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"


def read(*parts: bytes, ended: bool = False) -> AnswerReader:
    reader = AnswerReader()
    for part in parts:
        reader.feed(part)
    if ended:
        reader.end()
    return reader


def test_a_request_is_a_line_its_headers_and_an_empty_line() -> None:
    head = request_head(b"/hook?a=1", [(b"host", b"example.com"), (b"content-length", b"2")])
    assert head == b"POST /hook?a=1 HTTP/1.1\r\nhost: example.com\r\ncontent-length: 2\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [(EMPTY, 204, b""), (SIZED, 200, b"ok"), (CHUNKED, 200, b"ok"), (INTERIM + SIZED, 200, b"ok")],
    ids=["no body", "sized", "chunked", "after interim answers"],
)
@given(cuts=st.sets(st.integers(min_value=1, max_value=140)))
def test_an_answer_is_read_however_it_is_cut(
    answer: bytes, status: int, body: bytes, cuts: set[int]
) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    reader = AnswerReader()
    for start, end in pairwise(places):
        assert not reader.complete
        reader.feed(answer[start:end])
    assert (reader.complete, reader.reusable) == (True, True)
    assert (reader.status, reader.body) == (status, body)
    assert not {"x", "link"} & reader.headers.keys()


def test_names_of_headers_are_in_small_letters_and_their_values_as_they_came() -> None:
    reader = read(b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nX-Name: \xe9\r\ncontent-length: 0\r\n\r\n")
    assert reader.status == 503
    assert (reader.headers["retry-after"], reader.headers["x-name"]) == ("7", "\xe9")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), id="it says so"),
        pytest.param(SIZED.replace(b"1.1", b"1.0"), id="HTTP/1.0"),
        pytest.param(SIZED + EMPTY, id="a second answer"),
        pytest.param(SIZED + b"xyz", id="something behind it"),
    ],
)
def test_a_connection_is_not_used_again(answer: bytes) -> None:
    reader = read(answer)
    assert (reader.complete, reader.reusable) == (True, False)
    assert (reader.status, reader.body) == (200, b"ok")


def test_a_body_of_no_told_length_ends_with_the_connection() -> None:
    reader = read(b"HTTP/1.1 200 OK\r\n\r\no", b"k")
    assert not reader.complete
    reader.end()
    assert (reader.complete, reader.reusable, reader.body) == (True, False, b"ok")


def test_no_more_of_a_body_is_read_than_is_looked_at() -> None:
    reader = read(b"HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\n\r\n", b"x" * LONGEST)
    assert not reader.complete
    reader.feed(b"x")
    assert (reader.complete, reader.reusable) == (True, False)


@pytest.mark.parametrize(
    ("parts", "word"),
    [
        pytest.param([b"SSH-2.0-OpenSSH_9.2\r\n"], "HTTP/1.1", id="something else"),
        pytest.param([b"HTTP/1.1 2x0 OK\r\n\r\n"], "HTTP/1.1", id="a broken status"),
        pytest.param(
            [SIZED.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n")], "HTTP/1.1",
            id="two lengths",
        ),
        pytest.param(
            [b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"], "protocol",
            id="another protocol",
        ),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\n", *[b"a: b\r\n" * 4096] * 3], "head", id="endless head"
        ),
        pytest.param([INTERIM * 1000], "head", id="endless interim answers"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused(parts: list[bytes], word: str) -> None:
    with pytest.raises(MalformedAnswerError, match=word):
        read(*parts)


@pytest.mark.parametrize("answer", [b"", SIZED[:20], SIZED[:-1], CHUNKED[:-4], INTERIM])
def test_an_end_before_the_answers_end_is_told(answer: bytes) -> None:
    with pytest.raises(MalformedAnswerError, match="hung up"):
        read(*([answer] if answer else []), ended=True)
