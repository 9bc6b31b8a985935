"""The bytes of an answer, decompressed no further than is allowed. Free of I/O.

RFC 9110, 8.4.1: `gzip` (RFC 1952, of several members, too) and `deflate` (RFC 1950, or the bare
RFC 1951 that some servers send).
"""

from __future__ import annotations

import zlib

# What a request says it takes.
ACCEPTED = "gzip, deflate"
_GZIP = 16 + zlib.MAX_WBITS
_METHOD = 8


class EncodingError(Exception):
    """An answer is encoded otherwise, damaged, or cut off; the message says which."""


class TooLargeError(Exception):
    """More came out than is allowed."""


class Inflating:
    """Takes an answer's bytes as they come.

    Args:
        encoding: Its `Content-Encoding`; empty: none.
        most: So many decompressed bytes are allowed.

    Attributes:
        body: What came out.

    Raises:
        EncodingError: It is none that was asked for.
    """

    def __init__(self, encoding: str, most: int) -> None:
        name = encoding.strip().lower()
        if name not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise EncodingError("it has an encoding that was not asked for")
        self._name, self._most = name.removeprefix("x-"), most
        self._first = b""
        self._inflate: zlib._Decompress | None = None
        self.body = bytearray()

    def add(self, part: bytes) -> None:
        """Take the next bytes.

        Raises:
            TooLargeError, EncodingError: It is of no use to go on.
        """
        if self._name in {"", "identity"}:
            self.body += part
            self._check()
            return
        part, self._first = self._first + part, b""
        while part:
            if self._inflate is None:
                if len(part) < 2:
                    self._first = part
                    return
                self._inflate = zlib.decompressobj(self._window(part))
            try:
                self.body += self._inflate.decompress(part, self._most - len(self.body) + 1)
            except zlib.error as error:
                raise EncodingError(f"it cannot be decompressed: {error}") from None
            self._check()
            part = self._inflate.unconsumed_tail
            if self._inflate.eof:
                part = self._inflate.unused_data
                if self._name == "gzip" and part:
                    self._inflate = None
                else:
                    return

    def end(self) -> None:
        """Nothing more comes. Raises EncodingError: it was cut off."""
        if self._first or (self._inflate is not None and not self._inflate.eof):
            raise EncodingError("it is cut off")

    def _check(self) -> None:
        if len(self.body) > self._most:
            raise TooLargeError

    def _window(self, start: bytes) -> int:
        if self._name == "gzip":
            return _GZIP
        # RFC 1950, 2.2: the method, and two bytes that are a multiple of 31.
        wrapped = start[0] & 0x0F == _METHOD and (start[0] << 8 | start[1]) % 31 == 0
        return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS
