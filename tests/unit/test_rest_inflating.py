"""Compressed answers of REST sources, without any I/O."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from connectors.rest.inflating import EncodingError, Inflating, TooLargeError

TEXT = b'[{"id": 1}]' * 500


def bare(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("", TEXT),
        ("Identity", TEXT),
        ("gzip", gzip.compress(TEXT)),
        ("X-GZip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", bare(TEXT)),
    ],
    ids=["plain", "identity", "gzip", "two members", "zlib", "bare"],
)
def test_an_answer_is_decompressed_as_it_comes(encoding: str, data: bytes, size: int) -> None:
    for most, fits in ((len(TEXT), True), (len(TEXT) - 1, False)):
        answer = Inflating(encoding, most)
        try:
            for start in range(0, len(data), size):
                answer.add(data[start : start + size])
            answer.end()
        except TooLargeError:
            assert not fits
        else:
            assert fits
            assert answer.body == TEXT


def test_no_more_is_decompressed_than_is_allowed() -> None:
    bomb = gzip.compress(b"\0" * 100_000_000)
    answer = Inflating("gzip", 100_000)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            answer.add(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
def test_another_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(EncodingError):
        Inflating(encoding, 1000)


@pytest.mark.parametrize(
    "data", [b"junk" * 9, gzip.compress(TEXT)[:-9], b"\x1f"], ids=["junk", "cut", "begun"]
)
def test_a_damaged_answer_is_told(data: bytes) -> None:
    answer = Inflating("gzip", 100_000)

    def take() -> None:
        answer.add(data)
        answer.end()

    with pytest.raises(EncodingError):
        take()
