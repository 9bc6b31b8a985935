"""HTTP/1.1 as the sink speaks it, free of I/O: a request's head, and the answer out of its bytes.

Source: RFC 9112 (messages, their length and the persistence of connections), RFC 9110, 15.2
(interim answers). The parser is llhttp's, by httptools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

if TYPE_CHECKING:
    from collections.abc import Iterable

# A head that is longer is none; nor is more of a body kept.
LONGEST = 64 * 1024


class MalformedAnswerError(Exception):
    """What came is no answer, or only a part of one."""


def request_head(target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The head of a POST, the empty line included.

    Args:
        target: Path and query.
        headers: Names and values that are well-formed.
    """
    lines = [b"POST %b HTTP/1.1\r\n" % target]
    lines += [b"%b: %b\r\n" % header for header in headers]
    lines.append(b"\r\n")
    return b"".join(lines)


class AnswerReader:
    """One answer, out of the bytes that come on a connection. Interim answers are passed over.

    Attributes:
        status: Its status; 0 until its head is there.
        headers: With names in small letters; of several with one name the last.
        body: As far as it has come, up to `LONGEST` and what came with that.
        complete: It is there, up to its last byte or to the length that is kept.
        reusable: The connection may carry another request.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.complete = self.reusable = False
        self._seen = 0
        self._parser = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take what has come.

        Raises:
            MalformedAnswerError: It is no answer of HTTP/1.1.
        """
        self._seen += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            raise MalformedAnswerError("it wants to speak another protocol") from None
        except HttpParserError as error:
            if not self.complete:
                raise MalformedAnswerError(f"it does not speak HTTP/1.1: {error}") from None
            self.reusable = False
        if len(self.body) > LONGEST:
            self.complete, self.reusable = True, False
        elif not self.status and self._seen > LONGEST:
            raise MalformedAnswerError("the head of its answer does not come to an end")

    def end(self) -> None:
        """The connection has ended: so has an answer that is as long as its connection.

        Raises:
            MalformedAnswerError: The answer is not complete.
        """
        if self.complete:
            return
        if not self._seen:
            raise MalformedAnswerError("it hung up without an answer")
        framed = "content-length" in self.headers or self.headers.get(
            "transfer-encoding", ""
        ).lower().endswith("chunked")
        if not self.status or framed:
            raise MalformedAnswerError("it hung up in the middle of its answer")
        self.complete = True

    # What follows is called by the parser.

    def on_message_begin(self) -> None:
        """More than one answer came: the connection is out of step."""
        self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer, or a trailer."""
        if not self.complete:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is there."""
        if self.complete:
            return
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status
        else:
            self.headers.clear()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self.complete:
            self.body += body

    def on_message_complete(self) -> None:
        """The answer has come to its end, or an interim one has."""
        if self.status and not self.complete:
            self.complete, self.reusable = True, self._parser.should_keep_alive()
